"""VGG-16 and the ResNets of the paper, plain and with Ghost modules."""

import pytest
import torch
from torch import nn

from ghostdet.errors import ConfigError
from ghostdet.models import CifarResNet, CifarVGG16, GhostConv, GhostModule, GhostResNet


@pytest.mark.parametrize("ratio", [1, 2])
def test_cifar_resnet_is_its_definition(ratio):
    torch.manual_seed(0)
    network = CifarResNet(depth=20, ratio=ratio).eval()
    images = torch.randn(2, 3, 30, 33)
    x = network.stem(images)
    assert len(network.blocks) == 9
    for block in network.blocks:
        ahead = block.conv2(block.conv1(x))
        assert (ahead < 0).any()  # no activation before the addition
        x = nn.functional.avg_pool2d(x, 1, x.shape[1] * 2 // ahead.shape[1] % 2 + 1)
        zeros = ahead.new_zeros(2, ahead.shape[1] - x.shape[1], *x.shape[2:])
        x = (ahead + torch.cat([x, zeros], 1)).clamp(min=0)
    torch.testing.assert_close(network(images)[0], x)
    assert x.shape == (2, 64, 8, 9)


@pytest.mark.parametrize(
    "network", [CifarVGG16(3, 5), CifarResNet(8, 3, 5), GhostResNet(18, 3, 5)]
)
def test_all_but_the_first_convolution_are_ghost_modules(network):
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    kinds = GhostModule, GhostConv
    ghosts = [
        m for m in network.modules() if isinstance(m, kinds) and m.cheap_operation
    ]
    assert len(convs) == 2 * len(ghosts) + 1
    assert [c.kernel_size for c in convs].count((5, 5)) == len(ghosts)


def test_vgg_on_small_images():
    assert CifarVGG16().eval()(torch.randn(1, 3, 28, 8))[0].shape == (1, 512, 1, 1)


@pytest.mark.parametrize("depth", [2, 18, 57])
def test_refuses(depth):
    with pytest.raises(ConfigError, match=f"depth is {depth}, expected 6n"):
        CifarResNet(depth)
