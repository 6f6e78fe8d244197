"""Split bottlenecks have the outputs of ordinary ones."""

import pytest
import torch
from torch import nn

from ghostdet.export import fuse_for_inference
from ghostdet.export.split import SplitBottleneck
from ghostdet.models import GhostBottleneck, GhostNet, GhostNetV2, GhostNetV3


@pytest.mark.parametrize("ratio, split", [(1, 0), (2, 1), (3, 1)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("se_ratio", [0, 0.25])
@pytest.mark.parametrize("mid, out", [(16, 8), (17, 9), (25, 6)])
def test_any_bottleneck(ratio, split, stride, se_ratio, mid, out):
    torch.manual_seed(0)
    block = GhostBottleneck(6, mid, out, 5, stride, se_ratio, ratio=ratio)
    model = nn.Sequential(block).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.bias.data.uniform_(-1, 1)
    model.eval()
    x = torch.randn(2, 6, 9, 10).double()
    expected = model(x)
    torch.testing.assert_close(fuse_for_inference(model)(x), expected)
    assert isinstance(model[0], SplitBottleneck) == split


@pytest.mark.parametrize(
    "network, count", [(GhostNet, 16), (GhostNetV2, 2), (GhostNetV3, 2)]
)
def test_all_without_attention_are_split(network, count):
    model = fuse_for_inference(network(0.5).eval())
    assert sum(isinstance(m, SplitBottleneck) for m in model.modules()) == count


def test_other_norms_stay():
    """BN that was not folded must see all channels of the strided convolution."""
    norm_cfg = dict(type="GN", num_groups=2)
    model = fuse_for_inference(
        nn.Sequential(GhostBottleneck(6, 16, 8, stride=2, norm_cfg=norm_cfg)).eval()
    )
    assert isinstance(model[0], GhostBottleneck)
