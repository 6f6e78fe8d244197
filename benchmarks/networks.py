"""Backbones to compare: GhostNet and what a user would pick instead."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.backbones import MobileNetV2
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large

from ghostdet.models import GhostNet

TAPS = (3, 5, 11, 16)  # of GhostNet, the last blocks of strides 4, 8, 16 and 32


class Tapped(nn.Module):
    """Run layers one after another, and return some of their outputs.

    Args:
        layers: The layers.
        taps: Indices of the layers whose outputs are returned. Layers after the last
            of them are left out.
    """

    def __init__(self, layers: Sequence[nn.Module], taps: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers[: max(taps) + 1])
        self.taps = taps

    def forward(self, x: Tensor) -> list[Tensor]:
        """Run the layers on ``(N, 3, H, W)``."""
        outs = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.taps:
                outs.append(x)
        return outs


def tapped(network: nn.Module, taps: Sequence[int] = TAPS) -> Tapped:
    """Tap timm's GhostNet."""
    blocks = [block for stage in network.blocks[:-1] for block in stage]
    stem = nn.Sequential(network.conv_stem, network.bn1, network.act1)
    return Tapped([stem, *blocks], taps)


def backbones() -> dict[str, nn.Module]:
    """Build networks by name, tapped at the last block of strides 4, 8, 16 and 32.

    Both GhostNets have the same weights. No network has its final 1x1 convolution.
    """
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model("ghostnet_100")
    ours = GhostNet(1.0, channels_last=True)
    weights = theirs.state_dict()
    ours.load_state_dict({name: weights[name] for name in ours.state_dict()})
    large = timm.create_model("mobilenetv3_large_100")
    large_stem = nn.Sequential(large.conv_stem, large.bn1)  # its activation is inside
    mobilenetv2 = MobileNetV2(out_indices=(1, 2, 4, 6))
    mobilenetv2.layers.remove("conv2")  # computed and not returned
    del mobilenetv2.conv2
    return {
        "GhostNet 1.0x": ours,
        "timm ghostnet_100": tapped(theirs),
        "timm mobilenetv3_large_100": Tapped(
            [large_stem, *large.blocks[:-1]], (2, 3, 5, 6)
        ),
        "torchvision mobilenet_v3_large": Tapped(
            mobilenet_v3_large().features, (3, 6, 12, 15)
        ),
        "MMDetection MobileNetV2": mobilenetv2,
    }
