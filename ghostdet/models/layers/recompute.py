"""Recomputation in the backward pass, which saves memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def is_tracing() -> bool:
    """Whether what runs is recorded by an exporter, which knows PyTorch's own."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def recompute(
    forward: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor
) -> Tensor:
    """Run a part of a network so that the backward pass computes it again.

    Saves the memory of what is inside. The recomputation leaves the running statistics
    of BN alone.

    Args:
        forward: What to run.
        module: Whose BN layers it runs.
        x: Its input.
    """
    return checkpoint(
        forward,
        x,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _norm_statistics_kept(module)),
    )


@contextmanager
def _norm_statistics_kept(module: nn.Module) -> Iterator[None]:
    """BN layers normalise by the batch, but do not record its statistics again."""
    norms = [
        m
        for m in module.modules()
        if isinstance(m, _BatchNorm) and m.track_running_stats
    ]
    saved = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # of the batch's share in the running statistics
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, saved):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)
