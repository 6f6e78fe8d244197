"""The classifier compared with timm's, with one state dict in both."""

import pytest
import torch
from mmdet.registry import MODELS
from random_norms import timm_ghostnet

from ghostdet import CONFIGS
from ghostdet.config import load_config
from ghostdet.errors import UserError
from ghostdet.weights import check_state_dict

NAMES = {0.5: "ghostnet_050_in1k", 1.0: "ghostnet_100_in1k"}
NAMES |= {1.1: "ghostnet_110_in1k", 1.3: "ghostnet_130_in1k"}
LAYOUTS = {False: torch.contiguous_format, True: torch.channels_last}


def ours_of(width, **backbone):
    cfg = load_config(f"{CONFIGS}/classification/{NAMES[width]}.py").model
    cfg.backbone.update(backbone)
    return MODELS.build(cfg).eval()


@pytest.mark.parametrize("width", NAMES)
@torch.no_grad()
def test_logits_of_official_weights(width):
    """Equal in the same memory layout, and equal up to rounding in another."""
    theirs, x = timm_ghostnet(width), torch.randn(2, 3, 96, 64)
    weights = theirs.state_dict()
    assert len(weights) == 512
    for channels_last, layout in LAYOUTS.items():
        ours = ours_of(width, channels_last=channels_last)
        ours.load_state_dict(weights)
        assert torch.equal(ours(x), theirs.to(memory_format=layout)(x))
    ours = ours_of(width)
    ours.load_state_dict(weights)
    expected = theirs(x)
    assert (ours(x) - expected).abs().max() < 1e-6 * expected.abs().max()


def test_loads_under_either_name():
    ours, official = ours_of(0.5), timm_ghostnet(0.5).state_dict()
    own = ours.state_dict()
    assert own.keys() & official.keys() == set()
    assert all(name.startswith(("backbone.", "head.")) for name in own)
    ours.load_state_dict(own)
    ours.load_state_dict(official)
    both = {**official, "backbone.bn1.bias": official["bn1.bias"]}
    with pytest.raises(RuntimeError, match='Unexpected key.*"bn1.bias"'):
        ours.load_state_dict(both)


def test_what_may_differ():
    """Under our names, whatever the names of the file."""
    weights = timm_ghostnet(0.5).state_dict()
    weights["classifier.weight"] = torch.ones(7, 1280)
    weights["classifier.bias"] = torch.ones(7)
    ours = ours_of(0.5)
    with pytest.raises(UserError, match=r"allow=\['head.classifier'\]"):
        check_state_dict(ours, weights, "a.pth")
    check_state_dict(ours, weights, "a.pth", allow="head.classifier")
