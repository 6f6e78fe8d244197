"""Two processes evaluate as one does."""

import os
import re
import subprocess
import sys

import pytest


@pytest.fixture
def metrics(project, cells, trained, tmp_path):
    """A function: COCO's metrics as the log of an evaluation has them."""

    def run(*start, gpus=()):
        config = project / "configs/bccd/retinanet_ghostnet_small_bccd.py"
        options = [
            "model.test_cfg.score_thr=0.0",
            "test_dataloader.dataset.indices=7",  # of which one is evaluated twice
        ]
        command = [*start, config, trained / "iter_4.pth", *gpus, "--data-root", cells]
        command += ["--work-dir", tmp_path / "run", "--cfg-options", *options]
        output = subprocess.run(
            list(map(str, command)),
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            timeout=200,
        ).stdout
        return re.search(r"Iter\(test\) .*?(coco/.*coco/bbox_mAP_l: \S+)", output)[1]

    return run


def test_two_processes_evaluate_as_one(project, metrics):
    one = metrics(sys.executable, project / "tools/test.py")
    two = metrics(project / "tools/dist_test.sh", gpus=[2])
    assert one == two and "bbox_mAP_l: nan" not in one
