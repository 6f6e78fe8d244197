"""VGG-16 and the ResNets of the paper, plain and with Ghost modules."""

import pytest
import torch
from torch import nn

from ghostdet import CONFIGS
from ghostdet.analysis import complexity
from ghostdet.config import load_config
from ghostdet.errors import ConfigError
from ghostdet.models import (
    CifarResNet,
    CifarVGG16,
    GhostConv,
    GhostModule,
    GhostResNet,
)

# By config, s and d: our parameters and MACs in millions, and the paper's. The paper's
# rows with d other than 3 or s=5 are quoted from memory. For Ghost-ResNet-50 others
# count the same (https://github.com/huawei-noah/Efficient-AI-Backbones/issues/146).
FIGURES = {
    ("vgg16_cifar10", 1, 3): (14.99, 313.5, 15, 313),
    ("ghost_vgg16_cifar10", 2, 3): (7.65, 158.7, 7.7, 158),
    ("resnet56_cifar10", 1, 3): (0.853, 125.5, 0.85, 125),
    ("ghost_resnet56_cifar10", 2, 3): (0.438, 65.3, 0.43, 63),
    ("ghost_resnet56_cifar10", 2, 1): (0.430, 63.2, 0.43, 63),  # the paper omits d
    ("ghost_vgg16_cifar10", 2, 1): (7.63, 157.9, 7.6, 157),
    ("ghost_vgg16_cifar10", 2, 5): (7.68, 160.4, 7.7, 160),
    ("ghost_vgg16_cifar10", 5, 3): (3.27, 66.6, 3.3, 65),
    ("ghost_resnet50_in1k", 2, 3): (13.95, 2151.0, 13, 2200),
    ("ghost_resnet50_s4_in1k", 4, 3): (8.15, 1181.9, 6.5, 1200),
}


@pytest.mark.parametrize("name, ratio, dw_kernel", FIGURES)
def test_parameters_and_macs(name, ratio, dw_kernel):
    path = f"{CONFIGS}/classification/{name}.py"
    options = {"model.backbone.ratio": ratio, "model.backbone.dw_kernel": dw_kernel}
    if ratio == 1:
        options = {}  # the default
    result = complexity(load_config(path, cfg_options=options))
    params, macs = (result[key]["total"] / 1e6 for key in ("params", "macs"))
    expected = FIGURES[name, ratio, dw_kernel]
    assert params == pytest.approx(expected[0], abs=0.0051)
    assert macs == pytest.approx(expected[1], abs=0.051)
    if "resnet50" not in name:
        assert params == pytest.approx(expected[2], rel=0.02)
    assert macs == pytest.approx(expected[3], rel=0.04)


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
