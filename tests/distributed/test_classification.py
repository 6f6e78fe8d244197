"""A classifier in two processes, and resumed."""

from pathlib import Path

import pytest

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
