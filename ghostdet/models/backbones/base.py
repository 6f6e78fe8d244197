"""Base of the backbones: a stem, then blocks that may be outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.model import BaseModule
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor, nn

from ghostdet.errors import ConfigError
from ghostdet.models.layers.ghost_module import set_gradient_layout
from ghostdet.models.layers.recompute import recompute


class FeatureLevel(NamedTuple):
    """A possible output of a backbone."""

    block: int  # index into ``blocks`` of the block that computes it
    stride: int  # relative to the image
    channels: int  # at width 1.0


class BackboneBase(BaseModule):
    """A backbone that returns the outputs of some of its blocks.

    ``out_channels`` and ``out_strides`` describe them, for a neck's ``in_channels``.

    A subclass lists its possible outputs in ``FEATURE_LEVELS``. Its constructor builds
    the ``stem`` and the first ``self.level_blocks[-1] + 1`` of the ``blocks``, sets
    ``out_channels`` and calls :meth:`freeze`.

    Args:
        widen_factor: Width of the network.
        out_indices: Indices into ``FEATURE_LEVELS``, ascending. Layers after the last
            output are not built.
        frozen_stages: -1 freezes nothing, 0 the stem, ``i`` also the blocks up to
            feature level ``i - 1``. Frozen BN stays in evaluation mode.
        norm_eval: Keep all BN layers in evaluation mode in training.
        channels_last: Memory layout. ``None``: channels-last within the backbone on a
            CPU, where that is faster (docs/benchmarks.md); outputs are contiguous, as
            heads that use ``view`` need them. ``True``: outputs are channels-last too,
            on all devices. ``False``: the layout of the images. Weights keep their
            layout, and results are the same.
        with_cp: Recompute each block in the backward pass to save memory.
        init_cfg: MMEngine initialiser.

    Attributes:
        out_channels (tuple[int, ...]): Channels of each output.
        out_strides (tuple[int, ...]): Stride of each output.

    Raises:
        ConfigError: If ``widen_factor``, ``out_indices`` or ``frozen_stages`` is out of
            range.
    """

    FEATURE_LEVELS: tuple[FeatureLevel, ...]
    stem: Sequence[nn.Module]
    blocks: Sequence[nn.Module]
    out_channels: tuple[int, ...]

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        channels_last: bool | None = None,
        with_cp: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        count = len(self.FEATURE_LEVELS)
        if not widen_factor > 0:
            raise ConfigError(f"widen_factor is {widen_factor!r}, expected more than 0")
        out_indices = tuple(out_indices)
        known = sorted(set(out_indices) & set(range(count)))
        if not out_indices or list(out_indices) != known:
            raise ConfigError(
                f"out_indices is {out_indices}, expected ascending indices from 0 to "
                f"{count - 1}, such as (1, 2, 3) for strides 8, 16 and 32"
            )
        if not -1 <= frozen_stages <= count:
            raise ConfigError(
                f"frozen_stages is {frozen_stages}, expected -1 to {count}"
            )
        self.widen_factor = widen_factor
        self.out_indices = out_indices
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.channels_last = channels_last
        self.with_cp = with_cp
        self.out_strides = tuple(self.FEATURE_LEVELS[i].stride for i in out_indices)
        self.level_blocks = tuple(self.FEATURE_LEVELS[i].block for i in out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run the backbone.

        Args:
            x: Normalised images ``(N, 3, H, W)``, floating point, RGB.

        Returns:
            One ``(N, C, H / stride, W / stride)`` for each of ``out_indices``, with
            ``C`` from ``out_channels``, ``stride`` from ``out_strides``, and sizes
            rounded up.
        """
        inside = self.channels_last is None and x.device.type == "cpu"
        if inside or self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        for module in self.stem:
            x = module(x)
        outs = []
        for index, block in enumerate(self.blocks):
            again = self.with_cp and block.training and x.requires_grad
            x = recompute(block, x) if again else block(x)
            if index in self.level_blocks:
                out = x
                if inside:
                    out = x.contiguous()
                    set_gradient_layout(out, torch.channels_last)
                outs.append(out)
        return tuple(outs)

    def train(self, mode: bool = True) -> BackboneBase:
        """Set the mode, except for frozen stages and, with ``norm_eval``, BN."""
        super().train(mode)
        self.freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def freeze(self) -> None:
        """Freeze the stages that ``frozen_stages`` names.

        The constructor calls this too: DDP reads ``requires_grad`` before ``train()``.
        """
        if self.frozen_stages < 0:
            return
        frozen = list(self.stem)
        if self.frozen_stages > 0:
            last = self.FEATURE_LEVELS[self.frozen_stages - 1].block
            frozen += self.blocks[: last + 1]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)
