"""Checks that the necks share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ghostdet.errors import ConfigError


def check_inputs(
    neck: str, in_channels: Sequence[int], inputs: Sequence[Tensor], advice: str
) -> None:
    """Check that a neck gets the feature levels it was built for.

    Raises:
        ConfigError: If channels differ, or if an input is not half the size of the one
            before, rounded up.
    """
    shapes = [tuple(x.shape[1:]) for x in inputs]
    halved = all(
        (h2, w2) == (-(-h1 // 2), -(-w1 // 2))
        for (_, h1, w1), (_, h2, w2) in zip(shapes, shapes[1:])
    )
    if not halved or [c for c, _, _ in shapes] != list(in_channels):
        raise ConfigError(
            f"{neck} expects {len(in_channels)} levels with channels "
            f"{list(in_channels)}, each half the size of the one before, but received "
            f"{len(shapes)} with (C, H, W) {', '.join(map(str, shapes))}; {advice}"
        )
