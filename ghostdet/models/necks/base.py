"""What the necks share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def _halved(inputs: Sequence[Tensor]) -> bool:
    """Whether each is half the size of the one before, rounded up."""
    sizes = [tuple(x.shape[2:]) for x in inputs]
    return all(
        small == tuple(-(-side // 2) for side in large)
        for large, small in zip(sizes, sizes[1:])
    )
