"""FPN on GhostNet's feature levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from torch import Tensor

from ghostdet.errors import ConfigError
from ghostdet.models.backbones.ghostnet import FEATURE_LEVELS, level_channels
from ghostdet.models.necks.base import check_inputs

# Without the final convolution, whose stride is 32 as well.
_INDEX_OF_STRIDE = {level.stride: i for i, level in enumerate(FEATURE_LEVELS[:4])}


@MODELS.register_module()
class GhostNetFPN(FPN):
    """MMDetection's FPN on the bottlenecks of a GhostNet.

    Takes the backbone's width and strides instead of a list of input channels.

    Args:
        widen_factor: Width of the backbone.
        strides: Strides of the inputs, consecutive ones out of 4, 8, 16 and 32. The
            backbone's ``out_indices`` must match: (1, 2, 3) for (8, 16, 32).
        out_channels: Channels of every output.
        num_outs: Number of outputs.
        **kwargs: FPN's other arguments (``add_extra_convs``, ``start_level``,
            ``norm_cfg``, ...).

    Raises:
        ConfigError: If ``strides`` are not consecutive, or in ``forward`` if inputs
            have other channels or sizes that do not halve.

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
                f"strides is {strides}, expected consecutive ones out of "
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
            ``num_outs`` tensors ``(N, out_channels, h, w)`` at ``strides``, then at
            twice the stride of the one before.
        """
        indices = tuple(_INDEX_OF_STRIDE[stride] for stride in self.strides)
        check_inputs(
            f"GhostNetFPN(widen_factor={self.widen_factor}, strides={self.strides})",
            self.in_channels,
            inputs,
            f"give the backbone widen_factor={self.widen_factor} and out_indices="
            f"{indices}, or the neck the backbone's widen_factor and strides",
        )
        return super().forward(inputs)
