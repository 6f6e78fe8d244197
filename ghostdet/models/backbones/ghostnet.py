"""GhostNet as an MMDetection backbone.

Architecture and parameter names: ``ghostnet_pytorch/ghostnet.py`` of
https://github.com/huawei-noah/Efficient-AI-Backbones; paper:
https://arxiv.org/abs/1911.11907.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mmcv.cnn import build_norm_layer
from mmdet.registry import MODELS
from torch import nn

from ghostdet.errors import ConfigError
from ghostdet.models.backbones.base import BackboneBase, FeatureLevel
from ghostdet.models.layers.ghost_module import BN, GhostBottleneck, make_divisible


class _Row(NamedTuple):
    """One bottleneck at width 1.0."""

    kernel: int  # of the strided depthwise convolution and of the shortcut's
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
FINAL_CHANNELS = 960  # of ``blocks.9``, the 1x1 convolution behind the bottlenecks


# The last bottleneck at each stride (n = 3, 5, 11, 16), where the author taps
# (https://github.com/iamhankai/ghostnet.pytorch/issues/35), then the final convolution.
FEATURE_LEVELS = (
    FeatureLevel(2, 4, 24),
    FeatureLevel(4, 8, 40),
    FeatureLevel(6, 16, 112),
    FeatureLevel(8, 32, 160),
    FeatureLevel(9, 32, FINAL_CHANNELS),
)


class _ConvNormAct(nn.Sequential):
    """A 1x1 convolution, norm and ReLU under the official names."""

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn1 = build_norm_layer(norm_cfg, out_channels)[1]
        self.act1 = nn.ReLU(inplace=True)


@MODELS.register_module()
class GhostNet(BackboneBase):
    """GhostNet without its classifier.

    Taps 0 to 3 are linear (no activation), 4 is behind a ReLU.

    Args:
        widen_factor: Width of the network; 0.5, 1.0, 1.1 and 1.3 stand in the paper.
        out_indices: Which taps to return, ascending. 0 to 3 are the last bottleneck at
            stride 4, 8, 16 and 32, 4 is the final 1x1 convolution (stride 32). Layers
            behind the last one are not built.
        frozen_stages: How much is frozen, its BN in evaluation mode: -1 nothing, 0 the
            stem, ``i`` all up to tap ``i - 1``.
        norm_eval: Keep all BN layers in evaluation mode in training.
        channels_last: Memory layout: ``None`` for channels-last within the backbone on
            a CPU, ``True`` for all that follows as well, ``False`` for neither.
        with_cp: Recompute bottlenecks in the backward pass to save memory.
        norm_cfg: Norm layers. The official network's BN has eps 1e-5, momentum 0.1.
        se_gate: ``'hard_sigmoid'``, or ``'clip'`` for weights of the TensorFlow
            original's kin.
        se_divisor: SE's reduced channels are rounded to a multiple of it; 1 for weights
            of the TensorFlow original's kin.
        init_cfg: MMEngine initialiser. The official network has none: PyTorch's own.

    Attributes:
        out_channels (tuple[int, ...]): Channels of each output.
        out_strides (tuple[int, ...]): Stride of each output.

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
    _bottlenecks = GhostBottleneck, GhostBottleneck  # the first two, those behind

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        channels_last: bool | None = None,
        with_cp: bool = False,
        norm_cfg: dict = BN,
        se_gate: str = "hard_sigmoid",
        se_divisor: int = 4,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(out_indices, frozen_stages, norm_eval, channels_last, init_cfg)
        self.widen_factor = widen_factor
        self.se_gate = se_gate
        self.se_divisor = se_divisor
        channels = level_channels(widen_factor)
        self.out_channels = tuple(channels[i] for i in self.out_indices)

        def width(value: int) -> int:
            return make_divisible(value * widen_factor)

        in_channels = width(STEM_CHANNELS)
        self.conv_stem = nn.Conv2d(3, in_channels, 3, 2, padding=1, bias=False)
        self.bn1 = build_norm_layer(norm_cfg, in_channels)[1]
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
                        with_cp=with_cp,
                        norm_cfg=norm_cfg,
                    )
                )
                in_channels = width(row.out)
            blocks.append(nn.Sequential(*bottlenecks))
        if self.level_blocks[-1] == len(BLOCKS):
            final = _ConvNormAct(in_channels, width(FINAL_CHANNELS), norm_cfg)
            blocks.append(nn.Sequential(final))
        self.blocks = nn.Sequential(*blocks)
        self.freeze()

    @property
    def stem(self) -> tuple[nn.Module, ...]:
        """What is in front of the blocks."""
        return self.conv_stem, self.bn1, self.act1


def level_channels(widen_factor: float) -> tuple[int, ...]:
    """Channels of all five taps of a GhostNet.

    Args:
        widen_factor: Width of the network.

    Raises:
        ConfigError: If ``widen_factor`` is not positive.

    >>> level_channels(1.1)
    (28, 44, 124, 176, 1056)
    """
    if not widen_factor > 0:
        raise ConfigError(f"widen_factor is {widen_factor!r}, expected more than 0")
    return tuple(make_divisible(tap.channels * widen_factor) for tap in FEATURE_LEVELS)
