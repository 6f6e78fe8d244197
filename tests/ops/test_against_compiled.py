"""Equality with MMCV's compiled operators, where an interpreter has them.

    GHOSTDET_COMPILED_PYTHON=/path/to/python \\
        pytest -rP tests/ops/test_against_compiled.py

prints the figures too. MMCV has no CPU kernels for RoIPool, the focal losses and
multi-scale deformable attention, so these are not among the cases.
"""

import os
import subprocess

import pytest
import torch

from ghostdet.ops import operator_backend

from . import compiled_cases
from .compiled_cases import OPERATORS, results

PYTHON = os.environ.get("GHOSTDET_COMPILED_PYTHON")

if not PYTHON:
    pytest.skip(
        "GHOSTDET_COMPILED_PYTHON names no interpreter with a compiled MMCV",
        allow_module_level=True,
    )
if operator_backend() == "mmcv":
    pytest.skip("MMCV is compiled here too", allow_module_level=True)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "results.pt"
    subprocess.run([PYTHON, "-W", "ignore", compiled_cases.__file__, path], check=True)
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def ours():
    return results()


@pytest.mark.parametrize("operator", [case.__name__ for case in OPERATORS])
def test_equality(operator, ours, compiled):
    worst = {}
    pairs = zip(ours[operator], compiled[operator], strict=True)
    for number, (result, expected) in enumerate(pairs):
        for a, b in zip(result, expected, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype, number
            if not a.is_floating_point():
                assert torch.equal(a, b), number
            elif a.numel():
                largest = (a - b).abs().max().item() / max(1, b.abs().max().item())
                worst[a.dtype] = max(worst.get(a.dtype, 0), largest)
    print(operator, len(compiled[operator]), "cases", worst)
    assert worst.get(torch.float32, 0) < 1e-5
    assert worst.get(torch.float64, 0) < 1e-12
