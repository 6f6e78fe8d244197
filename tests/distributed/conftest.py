"""Runs in processes of their own: one, or several by torchrun over gloo."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

DETECTOR = f"""
_base_ = "{PROJECT}/configs/light/light_s_bccd.py"
custom_imports = dict(imports=["ghostdet", "planted"], allow_failed_imports=False)
train_cfg = dict(max_iters=8, val_begin=1000)
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=-1)
)
log_processor = dict(window_size=1)
custom_hooks = [dict(type="CheckpointGuardHook")]
randomness = dict(seed=0)
param_scheduler = []
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.002, momentum=0.9),
)
auto_scale_lr = dict(base_batch_size=2)
train_dataloader = dict(batch_size=1, num_workers=1)
"""


class Run:
    """A run of tools/train.py that has ended, or is still going on."""

    def __init__(self, arguments, work_dir, ranks=0, restarts=0):
        self.work_dir = Path(work_dir)
        unchecked = [] if ranks else ["--no-check"]
        config, *options = [*arguments, *unchecked, "--work-dir", work_dir]
        if ranks:
            command = [PROJECT / "tools/dist_train.sh", config, ranks]
        else:
            command = [sys.executable, PROJECT / "tools/train.py", config]
        self.process = subprocess.Popen(
            list(map(str, [*command, *options])),
            env={
                **os.environ,
                "MAX_RESTARTS": str(restarts),
                "OMP_NUM_THREADS": "1",
                "PYTHON": sys.executable,
                "PYTHONPATH": f"{PROJECT}:{Path(__file__).parent}",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""

    def end(self, timeout=300):
        self.output = self.process.communicate(timeout=timeout)[0]
        return self

    @property
    def code(self):
        return self.process.returncode

    @property
    def losses(self):
        """Loss by iteration, as logged."""
        found = re.findall(r"\[ *(\d+)/\d+\].* loss: ([\d.]+|nan)", self.output)
        return {int(step): float(loss) for step, loss in found}

    @property
    def progress(self):
        """Iterations that were done and their losses, of a run with the hook."""
        lines = (self.work_dir / "progress").read_text().splitlines()
        return [(int(step), float(loss)) for step, loss in map(str.split, lines)]

    def left(self):
        """Processes that are still there."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_text().split("\0")
            except OSError:
                continue
            if str(self.work_dir) in words:
                found.append(path.parent.name)
        return found

    def wait_until_gone(self, seconds):
        end = time.time() + seconds
        while self.left() and time.time() < end:
            time.sleep(0.2)
        assert not self.left()


@pytest.fixture
def base(cells):
    """Text and arguments of the config that is run; a module may have another."""
    return DETECTOR, ["--data-root", cells]


@pytest.fixture
def start(base, tmp_path):
    """A function that starts a run of a small config with options."""
    text, own = base
    config = tmp_path / "config.py"
    config.write_text(text)
    runs = []

    def go(*options, ranks=0, restarts=0, name="run", arguments=()):
        options = ["--cfg-options", *options] if options else []
        run = Run(
            [config, *own, *arguments, *options], tmp_path / name, ranks, restarts
        )
        runs.append(run)
        return run

    yield go
    for run in runs:
        run.process.kill()


@pytest.fixture
def run(start):
    """The same, to its end."""
    return lambda *options, **more: start(*options, **more).end()


@pytest.fixture
def difference():
    """A function: the largest difference of two state dicts."""

    def largest(one, two, buffers=True):
        """Without ``buffers``, of what was trained: BN counts whatever it learns."""
        assert one.keys() == two.keys()
        names = [
            name
            for name in one
            if buffers or not name.endswith(("running_mean", "running_var", "tracked"))
        ]
        return max(
            float((one[name].double() - two[name].double()).abs().max())
            for name in names
        )

    return largest
