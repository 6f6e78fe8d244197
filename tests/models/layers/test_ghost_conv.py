import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.backbones import ResNet
from mmdet.models.dense_heads import FCOSHead, RetinaHead
from mmdet.models.necks import FPN
from torch import nn

from ghostdet.models import GhostConv

GHOST = dict(type="GhostConv")


@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("out_channels", [1, 12, 25])
@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (1, 2)])
def test_is_its_definition(ratio, out_channels, stride, dilation):
    """The first maps are a convolution's, each of the others filters one of them."""
    layer = GhostConv(5, out_channels, 3, stride, 1, dilation, ratio=ratio, dw_kernel=5)
    x = torch.randn(2, 5, 9, 11)
    intrinsic = layer.primary_conv(x)
    expected = list(intrinsic.unbind(1))
    assert len(expected) == -(-out_channels // ratio)
    if ratio > 1:
        cheap = layer.cheap_operation
        for index, (kernel, bias) in enumerate(zip(cheap.weight, cheap.bias)):
            map_ = intrinsic[:, index // (ratio - 1)].unsqueeze(1)
            expected.append(
                nn.functional.conv2d(map_, kernel[None], bias[None], padding=2)[:, 0]
            )
    out = layer(x)
    torch.testing.assert_close(out, torch.stack(expected[:out_channels], 1))
    assert out.shape == nn.Conv2d(5, out_channels, 3, stride, 1, dilation)(x).shape


def test_in_a_conv_module():
    """It takes the place of a convolution, keeps its own initialisation and trains."""
    layer = ConvModule(
        6, 9, 3, padding=1, stride=2, conv_cfg=GHOST, norm_cfg=dict(type="BN")
    )
    assert (layer.in_channels, layer.out_channels, layer.stride) == (6, 9, (2, 2))
    assert (layer.transposed, layer.groups, layer.conv.primary_conv.bias) == (
        False,
        1,
        None,
    )
    layer(torch.randn(2, 6, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize("head", [RetinaHead, FCOSHead])
def test_keeps_its_initialisation_in_a_head(head):
    """Heads initialise convolutions with a deviation for hundreds of inputs."""
    torch.manual_seed(0)
    model = head(3, 64, stacked_convs=1, feat_channels=64, conv_cfg=GHOST)
    model.init_weights()
    ghost = model.cls_convs[0].conv(torch.randn(2, 64, 16, 16))
    assert 0.5 < ghost[:, 32:].std() / ghost[:, :32].std() < 2


def test_depthwise_and_grouped():
    depthwise = GhostConv(8, 8, 3, padding=1, groups=8)
    assert depthwise.cheap_operation is None
    assert depthwise.primary_conv.out_channels == 8
    grouped = GhostConv(8, 20, 1, groups=4)
    assert grouped.primary_conv.out_channels == 12
    assert grouped(torch.randn(1, 8, 4, 4)).shape == (1, 20, 4, 4)


def test_in_components_of_mmdetection():
    """The same outputs from fewer parameters, of a neck and of a backbone."""
    necks = [FPN([8, 16], 12, 3, conv_cfg=cfg) for cfg in (None, GHOST)]
    levels = [torch.randn(1, 8, 16, 16), torch.randn(1, 16, 8, 8)]
    options = dict(base_channels=8, stem_channels=8)
    networks = [ResNet(18, **options, conv_cfg=cfg) for cfg in (None, GHOST)]
    image = torch.randn(1, 3, 64, 64)
    for (plain, ghost), inputs in ((necks, levels), (networks, image)):
        for one, other in zip(plain(inputs), ghost(inputs), strict=True):
            assert one.shape == other.shape
        sizes = [sum(p.numel() for p in m.parameters()) for m in (ghost, plain)]
        assert sizes[0] < sizes[1]
