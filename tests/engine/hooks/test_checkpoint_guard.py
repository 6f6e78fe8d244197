"""A checkpoint that does not fit the model is refused, however it is loaded."""

import re
from types import SimpleNamespace

import pytest
from torch import nn
from unchecked import train

from ghostdet import apis
from ghostdet.apis import load_detector
from ghostdet.engine import CheckpointGuardHook
from ghostdet.errors import UserError


@pytest.mark.parametrize("prefix", ["", "module."])
def test_guard(prefix):
    runner = SimpleNamespace(model=nn.Linear(2, 3))
    own = runner.model.state_dict()
    weights = {f"{prefix}{k}": v for k, v in own.items()}
    bare = dict(weights)
    for checkpoint in (bare, {"state_dict": weights}):
        CheckpointGuardHook().after_load_checkpoint(runner, checkpoint)
        assert checkpoint == {"state_dict": own}  # as later hooks expect
    del weights["bias"]
    with pytest.raises(UserError, match="1 missing: bias"):
        CheckpointGuardHook().after_load_checkpoint(runner, {"state_dict": weights})
    CheckpointGuardHook(["bias"]).after_load_checkpoint(runner, {"state_dict": weights})


def test_another_head_from_a_trained_detector(tiny, trained):
    options = {
        "load_from": str(trained / "iter_4.pth"),
        "train_cfg.max_iters": 1,
        "model.bbox_head.anchor_generator.ratios": [1.0],
    }
    cfg = tiny(options)
    cfg.custom_hooks = None  # someone's own config lacks the guard
    message = r"retina_cls.bias is \[27\], not \[9\](.|\n)*custom_hooks=(.*)$"
    with pytest.raises(UserError, match=message) as caught:
        train(cfg)
    cfg = tiny(options)
    cfg.custom_hooks = eval(caught.value.text.rpartition("custom_hooks=")[2])
    assert train(cfg).iter == 1


@pytest.mark.parametrize("way", ["load_from", "resume", "test", "load_detector"])
def test_another_width(tiny, trained, way):
    checkpoint = str(trained / "iter_4.pth")
    cfg = tiny({"model.backbone.widen_factor": 1.0, "model.neck.widen_factor": 1.0})
    message = "size mismatch: " + re.escape(
        "backbone.blocks.0.0.ghost1.cheap_operation.0.weight is [4, 1, 3, 3], "
        "not [8, 1, 3, 3]"
    )
    with pytest.raises(UserError, match=message):
        if way == "load_from":
            cfg.load_from = checkpoint
            train(cfg)
        elif way == "resume":
            train(cfg, resume=checkpoint)
        elif way == "test":
            apis.test(cfg, checkpoint)
        else:
            load_detector(cfg, checkpoint)
