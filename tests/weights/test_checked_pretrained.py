"""MobileNets start from weights of others, by the configs' init_cfg."""

import pytest
import torch
from mmdet.registry import MODELS
from torchvision.models import mobilenet_v3_large

from ghostdet import CONFIGS
from ghostdet.config import load_config
from ghostdet.errors import UserError


def build(config, checkpoint):
    cfg = load_config(f"{CONFIGS}/{config}.py").model.backbone
    cfg.init_cfg.checkpoint = str(checkpoint)
    return MODELS.build(cfg)


def test_mobilenetv3(tmp_path):
    """With a file as torchvision publishes it: the whole classifier."""
    weights = mobilenet_v3_large().state_dict()
    torch.save(weights, tmp_path / "a.pth")
    backbone = build("retinanet_mobilenetv3_fpn", tmp_path / "a.pth")
    backbone.init_weights()
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_mobilenetv2(tmp_path):
    backbone = build("faster_rcnn_mobilenetv2_fpn", tmp_path / "a.pth")
    weights = {n: torch.rand_like(v.float()) for n, v in backbone.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "a.pth")
    backbone.init_weights()
    for name, parameter in backbone.named_parameters():
        assert torch.equal(parameter, weights[name]), name


def test_backbone_of_a_detector(tmp_path):
    backbone = build("retinanet_mobilenetv3_fpn", tmp_path / "a.pth")
    weights = {f"backbone.{n}": v for n, v in backbone.state_dict().items()}
    torch.save(
        {"state_dict": {**weights, "head.fc.bias": torch.ones(1)}}, tmp_path / "a.pth"
    )
    backbone.init_weights()
    del weights["backbone.features.0.0.weight"]
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(UserError, match="1 missing: features.0.0.weight"):
        build("retinanet_mobilenetv3_fpn", tmp_path / "a.pth").init_weights()
