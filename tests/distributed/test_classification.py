"""A classifier in two processes, and resumed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS

from ghostdet.apis import test as evaluate
from ghostdet.config import load_config
from ghostdet.weights import read_checkpoint

PROJECT = Path(__file__).parents[2]

# Epochs of five batches of digits.
CONFIG = f"""
_base_ = "{PROJECT}/configs/classification/ghostnet_digits.py"
v2 = "torchvision.transforms.v2."
custom_imports = dict(imports=["ghostdet", "planted"], allow_failed_imports=False)
custom_hooks = [dict(type="CheckpointGuardHook")]
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=-1, save_best=None))
train_cfg = dict(max_epochs=3, val_interval=10)
train_dataloader = dict(
    batch_size=256,
    dataset=dict(
        pipeline=[
            dict(type=v2 + "Resize", size=32),
            dict(type=v2 + "RandomAffine", degrees=10, translate=(0.1, 0.1)),
            dict(type=v2 + "PILToTensor"),
        ]
    ),
)
auto_scale_lr = dict(base_batch_size=256)
"""

STEPS = """
train_cfg = dict(
    _delete_=True, type="IterBasedTrainLoop", max_iters=10, val_interval=1000
)
default_hooks["checkpoint"].update(by_epoch=False, interval=5)
param_scheduler = []
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="SGD", lr=0.08, momentum=0.9)
)
"""

AVERAGED = """
custom_hooks = [
    dict(type="Progress"),
    dict(
        type="EMAHook",
        ema_type="ExpMomentumEMA",
        momentum=0.1,
        gamma=4,
        update_buffers=True,
        priority=49,
    ),
]
param_scheduler = [
    dict(
        type="OneCycleLR",
        eta_max=0.004,
        total_steps=3,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks["checkpoint"].update(by_epoch=False, interval=4)
"""


@pytest.fixture
def base(request):
    return CONFIG + request.param, []


@pytest.mark.parametrize("base", [STEPS], indirect=True)
@pytest.mark.long
def test_two_processes_equal_one(run, difference, base):
    """Without dropout, which each rank draws for itself, as its images differ."""
    options = [
        "model.type=DoubleClassifier",
        "model.sync=True",
        "model.head.dropout=0",
    ]
    one = run(*options, "train_dataloader.batch_size=32", name="one")
    two = run(*options, "train_dataloader.batch_size=16", ranks=2, name="two")
    assert "1 rank x 32 images x 1 accumulated = batch 32, for 256" in one.output
    assert "2 ranks x 16 images x 1 accumulated = batch 32, for 256" in two.output
    first, second, early = (
        read_checkpoint(str(run.work_dir / f"iter_{step}.pth"))["state_dict"]
        for run, step in ((one, 10), (two, 10), (one, 5))
    )
    same = difference(first, second)
    assert same < 1e-9
    assert difference(first, early, buffers=False) > 100 * same  # it did learn


@pytest.mark.parametrize("base", [AVERAGED], indirect=True)
@pytest.mark.long
def test_resumed_within_an_epoch(run, difference, base):
    """With dropout, augmentation, averaged weights and a schedule by iteration."""
    whole = run(name="whole")
    assert whole.code == 0, whole.output[-3000:]
    path = whole.work_dir / "iter_8.pth"
    resumed = run(name="resumed", arguments=["--resume", path])
    assert resumed.code == 0, resumed.output[-3000:]
    expected, again = dict(whole.progress), dict(resumed.progress)
    assert list(expected) == list(range(1, 16))
    assert list(again) == list(range(9, 16))
    assert again == pytest.approx({i: expected[i] for i in again}, abs=1e-6)
    last = "iter_15.pth"
    one, two = (
        read_checkpoint(str(ended.work_dir / last)) for ended in (whole, resumed)
    )
    for key in ("state_dict", "ema_state_dict"):
        assert difference(one[key], two[key]) < 1e-6
    name = "backbone.conv_stem.weight"
    averaged = one["ema_state_dict"][f"module.{name}"]
    assert (averaged - one["state_dict"][name]).abs().max() > 1e-4
    assert one["param_schedulers"] == two["param_schedulers"]


@pytest.mark.long
def test_two_processes_evaluate_as_one(digit_folders, tmp_path, new_run):
    """Of 13 images one is evaluated twice, and must not count twice."""
    extra = next((digit_folders / "train/n0").iterdir())
    extra.rename(digit_folders / "val/n0/extra.JPEG")
    config = PROJECT / "configs/classification/ghostnet_050_in1k.py"
    options = {
        "model.head.num_classes": 4,
        "test_evaluator.topk": "1,2,3",
        "test_dataloader.batch_size": 2,
        "test_dataloader.num_workers": 1,
        **{f"test_dataloader.dataset.pipeline.{i}.size": 64 for i in (0, 1)},
    }
    new_run()
    cfg = load_config(config, tmp_path / "one", digit_folders, options)
    cfg.test_evaluator.topk = (1, 2, 3)
    torch.manual_seed(0)
    state = MODELS.build(cfg.model).state_dict()
    torch.save({"state_dict": state}, tmp_path / "random.pth")
    one = evaluate(cfg, tmp_path / "random.pth")
    command = [PROJECT / "tools/dist_test.sh", config, tmp_path / "random.pth", 2]
    command += ["--data-root", digit_folders, "--work-dir", tmp_path / "two"]
    command += ["--cfg-options", *(f"{k}={v}" for k, v in options.items())]
    output = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=200,
    ).stdout
    two = re.findall(r"(accuracy/top.): ([\d.]+)", output)
    assert {name: float(value) for name, value in two} == pytest.approx(one, abs=1e-4)
    assert len(set(one.values())) == 3 and max(one.values()) < 100
