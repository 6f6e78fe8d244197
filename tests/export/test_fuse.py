"""The form for inference computes what the form for training computes."""

import copy
from pathlib import Path

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import DefaultScope
from random_norms import with_random_norms
from timm.layers import BatchNormAct2d
from torch import nn
from torch.utils._pytree import tree_leaves

from ghostdet import CONFIGS
from ghostdet.errors import ConfigError
from ghostdet.export import fuse_for_inference
from ghostdet.models import (
    GhostConv,
    GhostNet,
    GhostNetV2,
    GhostNetV3,
    ImageClassifier,
    MobileNetV3,
)

BN = dict(type="BN")
NAMES = sorted(
    str(path.relative_to(CONFIGS))
    for path in Path(CONFIGS).rglob("*.py")
    if "_base_" not in path.parts
)


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("network", [GhostNet, GhostNetV2, GhostNetV3, MobileNetV3])
def test_backbones(network):
    model = with_random_norms(network(0.5, out_indices=(0, 1, 2, 3, 4)))
    x = torch.randn(2, 3, 75, 98)
    with torch.no_grad():
        expected = model(x)
        assert norms(model)
        assert fuse_for_inference(model) is model
        for out, other in zip(model(x), expected, strict=True):
            assert (out - other).abs().max() < 1e-4 * other.abs().max()
    assert not norms(model)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_configs(name):
    """All of ours, with BN in necks and dense heads as well."""
    cfg = Config.fromfile(f"{CONFIGS}/{name}").model
    for part in ("neck", "bbox_head"):
        if part in cfg:
            cfg[part].norm_cfg = dict(type="BN")
    cfg.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = with_random_norms(MODELS.build(cfg))
    small = copy.deepcopy(model)
    fuse_for_inference(small)
    # The norm after each GhostConv stays.
    assert len(norms(small)) == sum(isinstance(m, GhostConv) for m in small.modules())
    x = demo_mm_inputs(1, [(3, 128, 160)])
    with torch.no_grad():
        outputs = [
            tree_leaves(_heads(m, m.data_preprocessor(x)["inputs"]))
            for m in (small, model)
        ]
    for out, other in zip(*outputs, strict=True):
        assert (out - other).abs().max() < 1e-4 * other.abs().max()


def _heads(model, images):
    if isinstance(model, ImageClassifier):
        return [model(images)]
    features = model.extract_feat(images)
    if hasattr(model, "bbox_head"):
        return model.bbox_head(features)
    rois = torch.tensor([[0, 8.0, 8, 90, 70], [0, 30, 20, 150, 120]])
    return model.rpn_head(features), model.roi_head._bbox_forward(features, rois)


def test_convolutions_that_norms_share():
    """RTMDet's heads have one convolution, and a norm for each level."""
    conv = nn.Conv2d(4, 4, 1)
    heads = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(4)) for _ in range(2))
    with_random_norms(heads)
    x = torch.randn(1, 4, 5, 5)
    expected = [head(x) for head in heads]
    fuse_for_inference(heads)
    for head, other in zip(heads, expected):
        torch.testing.assert_close(head(x), other)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConvModule(4, 4, 1, norm_cfg=BN, order=("norm", "conv", "act")),
        lambda: ConvModule(4, 4, 1, norm_cfg=BN, order=("conv", "act", "norm")),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), BatchNormAct2d(4)),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, affine=False)),
    ],
    ids=["norm first", "act first", "act inside", "act between", "not affine"],
)
def test_norms_that_do_something_else(make):
    model = make().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
    x = torch.randn(2, 4, 5, 5)
    expected = model(x)
    torch.testing.assert_close(fuse_for_inference(model)(x), expected)


def test_refuses_training_mode():
    with pytest.raises(ConfigError, match="in training mode; call model.eval"):
        fuse_for_inference(GhostNet(0.5))


def test_norms_behind_others_of_their_number():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
            self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))

    act = nn.ReLU()
    shared = nn.Sequential(
        nn.Conv2d(4, 4, 1), act, nn.Conv2d(4, 4, 1), act, nn.BatchNorm2d(4)
    )
    for model in (Block(), shared):
        with_random_norms(model)
        x = torch.randn(2, 4, 5, 5)
        expected = model(x)
        torch.testing.assert_close(
            fuse_for_inference(fuse_for_inference(model))(x), expected
        )
