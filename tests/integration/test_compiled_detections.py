"""Equality of detections with MMCV's compiled operators, if an interpreter has them.

    GHOSTDET_COMPILED_PYTHON=/path/to/python \\
        pytest tests/integration/test_compiled_detections.py
"""

import os
import runpy
import subprocess
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("compiled_detections.py")
PYTHON = os.environ.get("GHOSTDET_COMPILED_PYTHON")


@pytest.mark.skipif(
    not PYTHON,
    reason="GHOSTDET_COMPILED_PYTHON names no interpreter with a compiled MMCV",
)
def test_detections_are_equal(coco, project, tmp_path):
    images, path = coco / "val2017", tmp_path / "compiled.pt"
    env = {**os.environ, "PYTHONPATH": str(project)}
    subprocess.run([PYTHON, "-W", "ignore", SCRIPT, images, path], check=True, env=env)
    compiled = torch.load(path, weights_only=True)
    ours = runpy.run_path(str(SCRIPT))["detections"](str(images))
    assert len(ours) == 12 and ours.keys() == compiled.keys()
    for name, expected in compiled.items():
        assert len(expected[0]) > 10, name
        torch.testing.assert_close(ours[name], expected, rtol=1e-5, atol=1e-4)
