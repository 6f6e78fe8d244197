"""Necks: FPN on GhostNet's taps, and a light pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ghostdet.errors import ConfigError

from .ghost import BN, RELU, GhostBottleneck, check_odd
from .ghostnet import TAPS, tap_channels

# The bottleneck taps only: the final convolution has a stride in common with the last.
_INDEX_OF_STRIDE = {tap.stride: index for index, tap in enumerate(TAPS[:4])}


@MODELS.register_module()
class GhostNetFPN(FPN):
    """FPN on the bottleneck taps of a GhostNet.

    Takes the width and the strides in place of a list of input channels, and checks
    what the backbone delivers.

    Args:
        widen_factor: Width of the backbone.
        strides: Strides of the taps, each twice the one before, out of 4, 8, 16, 32.
            The backbone's ``out_indices`` are to match: (1, 2, 3) for (8, 16, 32).
        out_channels: Channels of every output.
        num_outs: Number of outputs.
        **kwargs: FPN's other arguments (``add_extra_convs``, ``start_level``,
            ``norm_cfg``, ...).

    Raises:
        ConfigError: If ``strides`` are not consecutive, or in ``forward`` if the
            backbone delivers other channels, another number of levels, or levels whose
            sizes do not halve.

    Example:
        >>> import torch
        >>> from ghostdet.models import GhostNet
        >>> backbone = GhostNet(widen_factor=0.5, out_indices=(1, 2, 3))
        >>> neck = GhostNetFPN(widen_factor=0.5, out_channels=64, num_outs=5)
        >>> [tuple(x.shape[1:]) for x in neck(backbone(torch.rand(2, 3, 128, 128)))]
        [(64, 16, 16), (64, 8, 8), (64, 4, 4), (64, 2, 2), (64, 1, 1)]
    """

    def __init__(
        self,
        widen_factor: float = 1.0,
        strides: Sequence[int] = (8, 16, 32),
        out_channels: int = 256,
        num_outs: int = 5,
        **kwargs: Any,
    ) -> None:
        strides = tuple(strides)
        known = list(_INDEX_OF_STRIDE)
        first = known.index(strides[0]) if strides and strides[0] in known else 0
        if not strides or strides != tuple(known[first : first + len(strides)]):
            raise ConfigError(
                f"strides is {strides}, expected a run of consecutive ones out of "
                f"{tuple(known)}, such as (8, 16, 32)"
            )
        channels = tap_channels(widen_factor)
        super().__init__(
            in_channels=[channels[_INDEX_OF_STRIDE[s]] for s in strides],
            out_channels=out_channels,
            num_outs=num_outs,
            **kwargs,
        )
        self.widen_factor = widen_factor
        self.strides = strides

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the neck.

        Args:
            inputs: One ``(N, C, H / stride, W / stride)`` for each of ``strides``.

        Returns:
            ``num_outs`` tensors ``(N, out_channels, h, w)``: the strides given, then
            each twice the one before.
        """
        self._check(inputs)
        return super().forward(inputs)

    def _check(self, inputs: Sequence[Tensor]) -> None:
        received = [x.shape[1] for x in inputs]
        if _halved(inputs) and received == self.in_channels:
            return
        expected = ", ".join(
            f"{c} at stride {s}" for c, s in zip(self.in_channels, self.strides)
        )
        delivered = ", ".join(
            f"{x.shape[1]} at stride {stride}"
            for x, stride in zip(inputs, self._received_strides(inputs))
        )
        indices = tuple(_INDEX_OF_STRIDE[s] for s in self.strides)
        raise ConfigError(
            f"GhostNetFPN(widen_factor={self.widen_factor}, strides={self.strides}) "
            f"expects {len(self.in_channels)} levels with channels {expected}, but "
            f"received {len(inputs)} with {delivered}; give the backbone "
            f"widen_factor={self.widen_factor} and out_indices={indices}, or the neck "
            "the backbone's widen_factor and strides"
        )

    def _received_strides(self, inputs: Sequence[Tensor]) -> list[int]:
        """Strides, of which only ratios can be seen; known channels give the scale."""
        known = {c: tap.stride for c, tap in zip(tap_channels(self.widen_factor), TAPS)}
        size, stride = next(
            ((x.shape[-1], known[x.shape[1]]) for x in inputs if x.shape[1] in known),
            (inputs[0].shape[-1], self.strides[0]) if inputs else (1, 1),
        )
        return [round(stride * size / x.shape[-1]) for x in inputs]


@MODELS.register_module()
class GhostPAN(BaseModule):
    """A light pyramid: top-down, then bottom-up, Ghost bottlenecks where levels meet.

    Inputs get ``out_channels`` by 1x1 convolutions. Levels are added, not concatenated:
    a bottleneck then keeps its channels, and its shortcut costs nothing. Levels behind
    the last input are made from the one before by a strided depthwise separable
    convolution, as the bottom-up steps are.

    Args:
        in_channels: Channels of each input, the finest first.
        out_channels: Channels of every output.
        num_outs: Number of outputs, as many as inputs or more.
        kernel_size: Kernel of the strided depthwise convolutions.
        norm_cfg: Norm behind each convolution.
        act_cfg: Activation behind the 1x1 and the strided convolutions.
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
            ``num_outs`` tensors ``(N, out_channels, h, w)``: the strides of the inputs,
            then each twice the one before.
        """
        self._check(inputs)
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

    def _check(self, inputs: Sequence[Tensor]) -> None:
        received = [tuple(x.shape[1:]) for x in inputs]
        if [c for c, _, _ in received] != self.in_channels or not _halved(inputs):
            raise ConfigError(
                f"GhostPAN(in_channels={self.in_channels}) expects as many inputs with "
                "these channels, each half the size of the one before, but received "
                f"(C, H, W) {', '.join(map(str, received))}; give it the out_channels "
                "of the backbone, whose out_indices are to be consecutive"
            )


def _halved(inputs: Sequence[Tensor]) -> bool:
    """Whether each is half the size of the one before, rounded up."""
    sizes = [tuple(x.shape[2:]) for x in inputs]
    return all(
        small == tuple(-(-side // 2) for side in large)
        for large, small in zip(sizes, sizes[1:])
    )
