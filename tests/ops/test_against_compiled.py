"""Equality with MMCV's compiled operators, where an interpreter has them.

    GHOSTDET_COMPILED_PYTHON=/path/to/python \\
        pytest -rP tests/ops/test_against_compiled.py

prints the figures too. MMCV has no CPU kernels for RoIPool, the focal losses and
multi-scale deformable attention, so these are not among the cases.
"""

import os
import runpy
import subprocess
from pathlib import Path

import pytest
import torch

from ghostdet.ops import operator_backend

CASES = Path(__file__).with_name("compiled_cases.py")
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
    subprocess.run([PYTHON, "-W", "ignore", CASES, path], check=True)
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def ours():
    return runpy.run_path(str(CASES))["results"]()


@pytest.mark.parametrize(
    "operator",
    [
        "nms",
        "softnms",
        "nms_match",
        "bbox_overlaps",
        "roi_align",
        "deform_conv",
        "modulated_deform_conv",
    ],
)
def test_equality(operator, ours, compiled):
    worst = {}
    assert ours[operator].keys() == compiled[operator].keys()
    for name, expected in compiled[operator].items():
        result = ours[operator][name]
        assert len(result) == len(expected), name
        for a, b in zip(result, expected, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype, name
            if not a.is_floating_point():
                assert torch.equal(a, b), name
            elif a.numel():
                largest = (a - b).abs().max().item() / max(1, b.abs().max().item())
                worst[a.dtype] = max(worst.get(a.dtype, 0), largest)
    print(operator, len(compiled[operator]), "cases", worst)
    assert worst.get(torch.float32, 0) < 1e-5
    assert worst.get(torch.float64, 0) < 1e-12
