"""Networks that torchvision has too, with one state dict in both."""

import pytest
import torch
import torchvision
from random_norms import with_random_norms
from torch import nn

from ghostdet.models import CifarVGG16, GhostResNet, MobileNetV3


@pytest.fixture(autouse=True)
def double():
    """Build networks and inputs in double precision."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("width", [0.75, 1.0])
@torch.no_grad()
def test_mobilenetv3(width):
    theirs = with_random_norms(torchvision.models.mobilenet_v3_large(width_mult=width))
    ours = MobileNetV3(width, out_indices=(0, 1, 2, 3, 4), channels_last=False).eval()
    weights = theirs.state_dict()
    ours.load_state_dict({n: v for n, v in weights.items() if n.startswith("features")})
    norms = [m for m in ours.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(0.001, 0.01)}
    x = torch.randn(1, 3, 49, 66)
    expected, y = [], x
    for index, layer in enumerate(theirs.features):
        y = layer(y)
        if index in (3, 6, 12, 15, 16):
            expected.append(y)
    torch.testing.assert_close(list(ours(x)), expected)


@torch.no_grad()
def test_plain_ghost_resnet():
    theirs = with_random_norms(torchvision.models.resnet50())
    ours = GhostResNet(50, ratio=1)
    ours.eval()  # which returns None
    names = {name.replace(".primary_conv", ""): name for name in ours.state_dict()}
    state = theirs.state_dict()
    ours.load_state_dict({own: state[name] for name, own in names.items()})
    x = torch.randn(1, 3, 33, 48)
    y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    for layer, out in zip(("layer1", "layer2", "layer3", "layer4"), ours(x)):
        y = getattr(theirs, layer)(y)
        torch.testing.assert_close(out, y)


@torch.no_grad()
def test_plain_cifar_vgg():
    ours = with_random_norms(CifarVGG16())
    layers = torchvision.models.vgg.cfgs["D"]
    theirs = torchvision.models.vgg.make_layers(layers, batch_norm=True).eval()
    state = iter(ours.state_dict().values())
    target = theirs.state_dict()
    for name, values in target.items():
        if values.ndim == 1 and target[name.replace("bias", "weight")].ndim == 4:
            values.zero_()  # their convolutions have a bias
        else:
            values.copy_(next(state))
    assert next(state, None) is None
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x)[0], theirs(x))
