"""Text for people."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


def shorten(names: Sequence[str], limit: int = 10) -> str:
    """List at most ``limit`` names."""
    listed = ", ".join(map(str, names[:limit]))
    return listed if len(names) <= limit else f"{listed}, ... ({len(names)} in all)"


@contextmanager
def quiet(logger: logging.Logger) -> Iterator[None]:
    """Silence warnings, and all that a logger says below errors."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
