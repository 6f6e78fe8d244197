"""Necks: FPN on GhostNet's taps, and a light pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from torch import Tensor

from ghostdet.errors import ConfigError
from ghostdet.models.backbones.ghostnet import FEATURE_LEVELS, level_channels
from ghostdet.models.necks.base import _halved

# The bottleneck taps only: the final convolution has a stride in common with the last.
_INDEX_OF_STRIDE = {tap.stride: index for index, tap in enumerate(FEATURE_LEVELS[:4])}


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
        channels = level_channels(widen_factor)
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
        known = {
            c: tap.stride
            for c, tap in zip(level_channels(self.widen_factor), FEATURE_LEVELS)
        }
        size, stride = next(
            ((x.shape[-1], known[x.shape[1]]) for x in inputs if x.shape[1] in known),
            (inputs[0].shape[-1], self.strides[0]) if inputs else (1, 1),
        )
        return [round(stride * size / x.shape[-1]) for x in inputs]
