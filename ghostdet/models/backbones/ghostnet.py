"""GhostNet as an MMDetection backbone.

Architecture and parameter names: ``ghostnet_pytorch/ghostnet.py`` of
https://github.com/huawei-noah/Efficient-AI-Backbones; paper:
https://arxiv.org/abs/1911.11907.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mmdet.registry import MODELS
from torch import nn

from ghostdet.models.backbones.base import BackboneBase, FeatureLevel
from ghostdet.models.layers.ghost_module import (
    BN,
    ConvNorm,
    GhostBottleneck,
    conv_norm,
    make_divisible,
)


class _Row(NamedTuple):
    """One bottleneck at width 1.0."""

    kernel: int  # of the strided depthwise convolution and of the shortcut
    exp: int  # channels between the two Ghost modules
    out: int  # output channels
    se: float  # SE's reduced channels as a share of exp, 0 for no SE
    stride: int


# ``blocks.0`` to ``blocks.8`` of the official network (paper, table 1).
BLOCKS = (
    (_Row(3, 16, 16, 0, 1),),
    (_Row(3, 48, 24, 0, 2),),
    (_Row(3, 72, 24, 0, 1),),
    (_Row(5, 72, 40, 0.25, 2),),
    (_Row(5, 120, 40, 0.25, 1),),
    (_Row(3, 240, 80, 0, 2),),
    (
        _Row(3, 200, 80, 0, 1),
        _Row(3, 184, 80, 0, 1),
        _Row(3, 184, 80, 0, 1),
        _Row(3, 480, 112, 0.25, 1),
        _Row(3, 672, 112, 0.25, 1),
    ),
    (_Row(5, 672, 160, 0.25, 2),),
    (
        _Row(5, 960, 160, 0, 1),
        _Row(5, 960, 160, 0.25, 1),
        _Row(5, 960, 160, 0, 1),
        _Row(5, 960, 160, 0.25, 1),
    ),
)
STEM_CHANNELS = 16
FINAL_CHANNELS = 960  # of ``blocks.9``, the 1x1 convolution after the bottlenecks

# The last bottleneck at each stride (number 3, 5, 11 and 16), as the author uses it
# (https://github.com/iamhankai/ghostnet.pytorch/issues/35), then the final convolution.
FEATURE_LEVELS = (
    FeatureLevel(2, 4, 24),
    FeatureLevel(4, 8, 40),
    FeatureLevel(6, 16, 112),
    FeatureLevel(8, 32, 160),
    FeatureLevel(9, 32, FINAL_CHANNELS),
)


@MODELS.register_module()
class GhostNet(BackboneBase):
    """GhostNet without its classifier.

    Feature levels 0 to 3 are the last bottleneck at stride 4, 8, 16 and 32, without an
    activation. Level 4 is the final 1x1 convolution (stride 32), after its ReLU.

    Args:
        widen_factor: Width of the network; the paper has 0.5, 1.0, 1.1 and 1.3.
        out_indices: Feature levels to return, ascending.
        norm_cfg: Norm layers. The official network's BN has eps 1e-5, momentum 0.1.
        se_gate: ``'hard_sigmoid'``, or ``'clip'`` for weights from TensorFlow or
            PaddleClas.
        se_divisor: SE's reduced channels are rounded to a multiple of it; 1 for weights
            from TensorFlow or PaddleClas.
        **kwargs: Other arguments of :class:`BackboneBase`: ``frozen_stages``,
            ``norm_eval``, ``channels_last``, ``with_cp`` and ``init_cfg``. Without
            ``init_cfg``, PyTorch's own initialisation, like the official network.

    Raises:
        ConfigError: If ``widen_factor``, ``out_indices`` or ``frozen_stages`` is out of
            range.

    Example:
        >>> import torch
        >>> model = GhostNet(widen_factor=1.1, out_indices=(1, 2, 3)).eval()
        >>> model.out_channels, model.out_strides
        ((44, 124, 176), (8, 16, 32))
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 224, 320))]
        [(1, 44, 28, 40), (1, 124, 14, 20), (1, 176, 7, 10)]
    """

    FEATURE_LEVELS = FEATURE_LEVELS
    _bottlenecks = GhostBottleneck, GhostBottleneck  # of blocks 0 and 1, of the others

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        *,
        norm_cfg: dict = BN,
        se_gate: str = "hard_sigmoid",
        se_divisor: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(widen_factor, out_indices, **kwargs)
        self.se_gate = se_gate
        self.se_divisor = se_divisor
        channels = level_channels(widen_factor)
        self.out_channels = tuple(channels[i] for i in self.out_indices)

        def width(value: int) -> int:
            return make_divisible(value * widen_factor)

        in_channels = width(STEM_CHANNELS)
        self.conv_stem, self.bn1 = conv_norm(3, in_channels, 3, norm_cfg, stride=2)
        self.act1 = nn.ReLU(inplace=True)

        blocks: list[nn.Module] = []
        for rows in BLOCKS[: self.level_blocks[-1] + 1]:
            bottlenecks = []
            for row in rows:
                bottleneck = self._bottlenecks[len(blocks) >= 2]
                bottlenecks.append(
                    bottleneck(
                        in_channels,
                        width(row.exp),
                        width(row.out),
                        kernel_size=row.kernel,
                        stride=row.stride,
                        se_ratio=row.se,
                        se_gate=se_gate,
                        se_divisor=se_divisor,
                        norm_cfg=norm_cfg,
                    )
                )
                in_channels = width(row.out)
            blocks.append(nn.Sequential(*bottlenecks))
        if self.level_blocks[-1] == len(BLOCKS):
            final = ConvNorm(in_channels, width(FINAL_CHANNELS), 1, norm_cfg)
            final.act1 = nn.ReLU(inplace=True)
            blocks.append(nn.Sequential(final))
        self.blocks = nn.Sequential(*blocks)
        self.freeze()

    @property
    def stem(self) -> tuple[nn.Module, ...]:
        """Layers before the blocks."""
        return self.conv_stem, self.bn1, self.act1


def level_channels(widen_factor: float) -> tuple[int, ...]:
    """Compute the channels of all five feature levels of a GhostNet.

    >>> level_channels(1.1)
    (28, 44, 124, 176, 1056)
    """
    return tuple(make_divisible(x.channels * widen_factor) for x in FEATURE_LEVELS)
