"""GhostPAN, a light pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ghostdet.errors import ConfigError
from ghostdet.models.layers.ghost_module import BN, RELU, GhostBottleneck, check_odd
from ghostdet.models.necks.base import check_inputs


@MODELS.register_module()
class GhostPAN(BaseModule):
    """A light pyramid: top-down, then bottom-up, with Ghost bottlenecks.

    1x1 convolutions bring the inputs to ``out_channels``. Levels are added, not
    concatenated, so bottlenecks keep their channels and their shortcuts cost nothing.
    Strided depthwise separable convolutions make the bottom-up steps and the levels
    after the last input.

    Args:
        in_channels: Channels of each input, the finest first.
        out_channels: Channels of every output.
        num_outs: Number of outputs, as many as inputs or more.
        kernel_size: Kernel of the strided depthwise convolutions.
        norm_cfg: Norm after each convolution.
        act_cfg: Activation after the 1x1 and the strided convolutions.
        init_cfg: MMEngine initialiser.

    Raises:
        ConfigError: If ``num_outs`` is less than the number of inputs, or in
            ``forward`` if inputs have other channels or sizes that do not halve.

    Example:
        >>> import torch
        >>> from ghostdet.models import GhostNet
        >>> backbone = GhostNet(0.5, out_indices=(1, 2, 3))
        >>> neck = GhostPAN(backbone.out_channels, out_channels=96, num_outs=4)
        >>> [tuple(x.shape[1:]) for x in neck(backbone(torch.rand(2, 3, 96, 96)))]
        [(96, 12, 12), (96, 6, 6), (96, 3, 3), (96, 2, 2)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 96,
        num_outs: int = 4,
        kernel_size: int = 5,
        norm_cfg: dict = BN,
        act_cfg: dict = RELU,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_odd(kernel_size=kernel_size)
        if num_outs < len(in_channels):
            raise ConfigError(
                f"num_outs is {num_outs}, expected {len(in_channels)} or more for "
                f"in_channels={list(in_channels)}"
            )
        self.in_channels = list(in_channels)
        layer = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)

        def bottlenecks() -> nn.ModuleList:
            return nn.ModuleList(
                GhostBottleneck(
                    out_channels, 2 * out_channels, out_channels, norm_cfg=norm_cfg
                )
                for _ in in_channels[1:]
            )

        self.lateral_convs = nn.ModuleList(
            ConvModule(channels, out_channels, 1, **layer) for channels in in_channels
        )
        self.top_down_blocks = bottlenecks()
        self.downsample_convs = nn.ModuleList(
            DepthwiseSeparableConvModule(
                out_channels,
                out_channels,
                kernel_size,
                stride=2,
                padding=kernel_size // 2,
                **layer,
            )
            for _ in range(num_outs - 1)
        )
        self.bottom_up_blocks = bottlenecks()

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the neck.

        Args:
            inputs: One ``(N, C, H / stride, W / stride)`` for each of ``in_channels``,
                each stride twice the one before, sizes rounded up.

        Returns:
            ``num_outs`` tensors ``(N, out_channels, h, w)`` at the strides of the
            inputs, then at twice the stride of the one before.
        """
        check_inputs(
            "GhostPAN",
            self.in_channels,
            inputs,
            "set in_channels to the backbone's out_channels, and give the backbone "
            "consecutive out_indices",
        )
        outs = [conv(x) for conv, x in zip(self.lateral_convs, inputs)]
        for index in reversed(range(len(inputs) - 1)):
            above = F.interpolate(outs[index + 1], size=outs[index].shape[2:])
            outs[index] = self.top_down_blocks[index](outs[index] + above)
        for index, downsample in enumerate(self.downsample_convs):
            below = downsample(outs[index])
            if index + 1 < len(outs):
                block = self.bottom_up_blocks[index]
                outs[index + 1] = block(outs[index + 1] + below)
            else:
                outs.append(below)
        return tuple(outs)
