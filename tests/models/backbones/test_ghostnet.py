import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ghostdet.errors import ConfigError
from ghostdet.models import GhostNet, GhostNetV3

# Parameters and MACs at 224x224 up to the bottlenecks and up to the final convolution,
# in millions, and channels of the levels, counted on the official network
# (ghostnet_pytorch/ghostnet.py of huawei-noah/Efficient-AI-Backbones).
WIDTHS = {
    0.5: (0.65, 38.6, 0.69, 40.4, (12, 20, 56, 80, 480)),
    1.0: (2.52, 131.1, 2.67, 138.6, (24, 40, 112, 160, 960)),
    1.1: (3.03, 155.2, 3.22, 164.4, (28, 44, 124, 176, 1056)),
    1.3: (4.22, 211.4, 4.48, 224.1, (32, 52, 144, 208, 1248)),
}


@pytest.mark.parametrize("width", WIDTHS)
def test_size_is_the_official_networks(width):
    counted = []
    for out_indices in ((3,), (0, 1, 2, 3, 4)):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            model = GhostNet(width, out_indices).eval()
            model(torch.empty(1, 3, 224, 224))
        params = sum(p.numel() for p in model.parameters())
        counted += [round(params / 1e6, 2), round(counter.get_total_flops() / 2e6, 1)]
    assert (*counted, model.out_channels) == WIDTHS[width]


def test_merging_branches_refuses_training_and_other_norms():
    with pytest.raises(ConfigError, match="training mode; call model.eval"):
        GhostNetV3(0.5).switch_to_deploy()
    model = GhostNetV3(0.5, norm_cfg=dict(type="GN", num_groups=1)).eval()
    with pytest.raises(ConfigError, match="branches with GroupNorm cannot be merged"):
        model.switch_to_deploy()


def test_merged_model_freezes():
    model = GhostNetV3(0.5, out_indices=(1, 3), frozen_stages=2).eval()
    model.switch_to_deploy()
    frozen = [not p.requires_grad for p in model.train().blocks[4].parameters()]
    assert frozen and all(frozen)
