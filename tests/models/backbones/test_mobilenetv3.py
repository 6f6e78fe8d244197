import copy

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn
from torchvision.models import mobilenet_v3_large

from ghostdet.models import MobileNetV3

LAST_BLOCKS = (3, 6, 12, 15, 16)  # in torchvision's ``features``, by stride


@pytest.mark.parametrize("width", [0.75, 1.0])
def test_is_torchvisions(width):
    torch.manual_seed(0)
    theirs = mobilenet_v3_large(width_mult=width).eval()
    ours = MobileNetV3(width, out_indices=(0, 1, 2, 3, 4), channels_last=False).eval()
    weights = theirs.state_dict()
    ours.load_state_dict({n: v for n, v in weights.items() if n.startswith("features")})
    norms = [m for m in ours.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(0.001, 0.01)}
    x, expected = torch.randn(1, 3, 75, 130), []
    with torch.no_grad():
        outs, y = ours(x), x
        for index, layer in enumerate(theirs.features):
            y = layer(y)
            if index in LAST_BLOCKS:
                expected.append(y)
    for out, other, channels, stride in zip(
        outs, expected, ours.out_channels, ours.out_strides, strict=True
    ):
        assert torch.equal(out, other)
        assert out.shape[1:] == (channels, -(-75 // stride), -(-130 // stride))
    assert ours.out_strides == (4, 8, 16, 32, 32)


def test_layers_behind_the_last_output_are_not_built():
    assert len(MobileNetV3(out_indices=(1,)).features) == 7


def test_frozen_stages():
    model = MobileNetV3(frozen_stages=1).train()
    for index, layer in enumerate(model.features):
        trained = [p.requires_grad for p in layer.parameters()]
        assert set(trained) == {index > 3}
        assert layer.training == (index > 3)


def test_checkpointing_changes_nothing():
    plain = MODELS.build(dict(type="MobileNetV3", out_indices=(1,)))
    saving = copy.deepcopy(plain)
    saving.with_cp = True
    x = torch.randn(2, 3, 64, 64)
    for model in (plain, saving):
        model.train()(x)[0].square().sum().backward()
    for ours, other in zip(saving.parameters(), plain.parameters()):
        torch.testing.assert_close(ours.grad, other.grad)
    torch.testing.assert_close(saving.state_dict(), plain.state_dict())
