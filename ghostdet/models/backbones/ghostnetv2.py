"""GhostNetV2: GhostNet with decoupled fully connected (DFC) attention.

"GhostNetV2: Enhance Cheap Operation with Long-Range Attention", NeurIPS 2022,
https://arxiv.org/abs/2211.12905. Parameter names: ``ghostnetv2_torch.py`` of
https://github.com/huawei-noah/Efficient-AI-Backbones.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ghostdet.models.backbones.ghostnet import GhostNet
from ghostdet.models.layers.ghost_module import (
    BN,
    GhostBottleneck,
    GhostModule,
    conv_norm,
)


def dfc_attention(in_channels: int, out_channels: int, norm_cfg: dict) -> nn.Module:
    """Build a 1x1 convolution and depthwise ones along rows and columns, with norms."""
    return nn.Sequential(
        *conv_norm(in_channels, out_channels, 1, norm_cfg),
        *conv_norm(out_channels, out_channels, (1, 5), norm_cfg, groups=out_channels),
        *conv_norm(out_channels, out_channels, (5, 1), norm_cfg, groups=out_channels),
    )


def dfc_gate(attention: nn.Module, x: Tensor) -> Tensor:
    """Compute factors in [0, 1] at half the size of ``x``."""
    return attention(F.avg_pool2d(x, kernel_size=2)).sigmoid()


class GhostModuleV2(GhostModule):
    """A Ghost module whose output is scaled by DFC attention on its input.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        norm_cfg: Norm after each convolution.
        **kwargs: :class:`GhostModule`'s other arguments.

    Example:
        >>> import torch
        >>> GhostModuleV2(16, 24)(torch.rand(2, 16, 9, 8)).shape
        torch.Size([2, 24, 9, 8])
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm_cfg: dict = BN, **kwargs: Any
    ) -> None:
        super().__init__(in_channels, out_channels, norm_cfg=norm_cfg, **kwargs)
        self.short_conv = dfc_attention(in_channels, out_channels, norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Run the module.

        Args:
            x: ``(N, in_channels, H, W)``, floating point, ``H`` and ``W`` 2 or more.

        Returns:
            ``(N, out_channels, H / stride, W / stride)``, sizes rounded up.
        """
        gate = dfc_gate(self.short_conv, x)
        out = super().forward(x)
        return out * F.interpolate(gate, size=out.shape[2:])


class GhostBottleneckV2(GhostBottleneck):
    """:class:`GhostBottleneck` whose first Ghost module has DFC attention."""

    _expansion = GhostModuleV2


@MODELS.register_module()
class GhostNetV2(GhostNet):
    """GhostNetV2 without its classifier.

    Arguments, feature levels, channels and strides are the same as in
    :class:`GhostNet`; the paper's widths are 1.0, 1.3 and 1.6. Images need 33 px or
    more on each side.

    Example:
        >>> import torch
        >>> model = GhostNetV2(widen_factor=1.0, out_indices=(1, 2, 3)).eval()
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 224, 320))]
        [(1, 40, 28, 40), (1, 112, 14, 20), (1, 160, 7, 10)]
    """

    _bottlenecks = GhostBottleneck, GhostBottleneckV2
