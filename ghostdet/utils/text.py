"""Text for people, and silence."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


def shorten(names: Sequence[str], limit: int = 10) -> str:
    """List at most ``limit`` names."""
    listed = ", ".join(map(str, names[:limit]))
    return listed if len(names) <= limit else f"{listed}, ... ({len(names)} in all)"


def megabytes(count: float) -> str:
    """Give a number of bytes in MB."""
    return f"{count / 1e6:,.0f} MB"


@contextmanager
def quiet(logger: logging.Logger) -> Iterator[None]:
    """Suppress warnings, and what a logger reports below the level of errors."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
