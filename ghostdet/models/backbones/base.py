"""What the backbones share: a stem, blocks behind it, and where they are tapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModule
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor, nn

from ghostdet.errors import ConfigError
from ghostdet.models.layers.recompute import is_tracing


class FeatureLevel(NamedTuple):
    """A place where a backbone can be tapped."""

    block: int  # index into ``blocks``; its output is what is tapped
    stride: int  # of the output, relative to the image
    channels: int  # of the output, at width 1.0


class BackboneBase(BaseModule):
    """A backbone that returns the outputs of some of its blocks.

    A subclass has ``FEATURE_LEVELS``, and sets ``blocks`` and ``stem`` in its constructor, of the
    blocks no more than ``self.level_blocks[-1] + 1``; then it calls :meth:`freeze`.

    Args:
        out_indices: Indices into ``FEATURE_LEVELS``, ascending.
        frozen_stages: How much is frozen, its BN in evaluation mode: -1 nothing, 0 the
            stem, ``i`` all up to tap ``i - 1``.
        norm_eval: Keep all BN layers in evaluation mode in training.
        channels_last: Memory layout. ``None``: channels-last within the backbone on a
            CPU, where that is faster (docs/benchmarks.md); outputs are contiguous, as
            heads that use ``view`` need them. ``True``: outputs are channels-last too,
            and so is what follows, on all devices. ``False``: as the images are.
            Weights keep theirs, and results are the same.
        init_cfg: MMEngine initialiser.

    Raises:
        ConfigError: If ``out_indices`` or ``frozen_stages`` is out of range.
    """

    FEATURE_LEVELS: tuple[FeatureLevel, ...]
    stem: Sequence[nn.Module]
    blocks: Sequence[nn.Module]

    def __init__(
        self,
        out_indices: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        channels_last: bool | None,
        init_cfg: dict | list | None,
    ) -> None:
        super().__init__(init_cfg)
        out_indices = tuple(out_indices)
        if not out_indices or list(out_indices) != sorted(
            set(out_indices) & set(range(len(self.FEATURE_LEVELS)))
        ):
            raise ConfigError(
                f"out_indices is {out_indices}, expected ascending indices from 0 to "
                f"{len(self.FEATURE_LEVELS) - 1}, such as (1, 2, 3) for strides 8, 16 and 32"
            )
        if not -1 <= frozen_stages <= len(self.FEATURE_LEVELS):
            raise ConfigError(
                f"frozen_stages is {frozen_stages}, expected -1 to {len(self.FEATURE_LEVELS)}"
            )
        self.out_indices = out_indices
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.channels_last = channels_last
        self.out_strides = tuple(self.FEATURE_LEVELS[i].stride for i in out_indices)
        self.level_blocks = tuple(self.FEATURE_LEVELS[i].block for i in out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run the backbone.

        Args:
            x: Normalised images ``(N, 3, H, W)``, floating point, RGB.

        Returns:
            For each of ``out_indices`` ``(N, C, H / stride, W / stride)`` with
            ``out_channels`` and ``out_strides``, sizes rounded up.
        """
        inside = self.channels_last is None and x.device.type == "cpu"
        if inside or self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        for module in self.stem:
            x = module(x)
        outs = []
        for index, block in enumerate(self.blocks):
            x = self._run(block, x)
            if index in self.level_blocks:
                outs.append(_contiguous(x) if inside else x)
        return tuple(outs)

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        return block(x)

    def train(self, mode: bool = True) -> BackboneBase:
        """Set the mode, keeping frozen stages and, by ``norm_eval``, BN as they are."""
        super().train(mode)
        self.freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def freeze(self) -> None:
        """Freeze what ``frozen_stages`` says.

        In the constructor as well: DDP looks at what is frozen before ``train()``.
        """
        if self.frozen_stages < 0:
            return
        frozen = list(self.stem)
        if self.frozen_stages > 0:
            frozen += self.blocks[
                : self.FEATURE_LEVELS[self.frozen_stages - 1].block + 1
            ]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)


def _contiguous(x: Tensor) -> Tensor:
    if x.requires_grad and torch.is_grad_enabled() and not is_tracing():
        return _Contiguous.apply(x)
    return x.contiguous()


class _Contiguous(torch.autograd.Function):
    """Contiguous outputs of a channels-last network, which gets its gradients so."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous(memory_format=torch.channels_last)
