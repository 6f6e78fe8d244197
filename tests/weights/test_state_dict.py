"""Missing, unexpected and mismatched keys, where they are allowed, and where not."""

from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from ghostdet.errors import UserError
from ghostdet.weights import check_state_dict, get_state_dict


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))


def test_fits(model):
    state_dict = model.state_dict()
    check_state_dict(model, state_dict, "a.pth")
    del state_dict["1.num_batches_tracked"]  # older ones lack it
    check_state_dict(model, state_dict, "a.pth")


def test_does_not_fit(model):
    state_dict = model.state_dict()
    state_dict["0.weight"] = torch.zeros(4, 3, 1, 1)
    state_dict["2.weight"] = state_dict.pop("1.weight")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        check_state_dict(model, state_dict, "a.pth")
    for line in (
        "a.pth do",
        "1 missing: 1.weight",
        "1 unexpected: 2.weight",
        "1 size mismatch: 0.weight is [4, 3, 1, 1], not [8, 3, 1, 1]",
    ):
        assert line in caught.value.text
    check_state_dict(model, state_dict, "a.pth", allow=["0.weight", r"[12]\.w"])
    check_state_dict(model, state_dict, "a.pth", allow=r"[012]\.weight")
    with pytest.raises(UserError, match="size mismatch: 0.weight"):
        check_state_dict(model, state_dict, "a.pth", allow=["weight"])  # at the start
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_detectors_that_rename_what_they_load():
    configs = Path(mmdet.__file__).parent / ".mim/configs/soft_teacher"
    name = "soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py"
    cfg = Config.fromfile(configs / name).model
    with DefaultScope.overwrite_default_scope("mmdet"):
        plain = MODELS.build(cfg.detector)
        teacher = MODELS.build(cfg)
    check_state_dict(teacher, plain.state_dict(), "a.pth")
    weights = plain.state_dict()
    del weights["backbone.conv1.weight"]
    with pytest.raises(UserError, match="missing: .*backbone.conv1.weight"):
        check_state_dict(teacher, weights, "a.pth")


@pytest.mark.parametrize("content", [[1], {"state_dict": [1]}])
def test_no_state_dict(content):
    with pytest.raises(UserError, match="holds no state dict but a list"):
        get_state_dict(content)


def test_prefix_of_data_parallel():
    assert get_state_dict({"module.a": 1, "b.module.c": 2}) == {"a": 1, "b.module.c": 2}
