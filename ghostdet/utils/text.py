"""Format text, and suppress warnings."""

from __future__ import annotations

import logging
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ghostdet.errors import printable


def shorten(names: Sequence[str], limit: int = 10) -> str:
    """List at most ``limit`` names."""
    listed = ", ".join(map(str, names[:limit]))
    return listed if len(names) <= limit else f"{listed}, ... ({len(names)} in all)"


def megabytes(count: float) -> str:
    """Give a number of bytes in MB."""
    return f"{count / 1e6:,.0f} MB"


def share(part: Sequence, whole: Sequence) -> str:
    """Format the two lengths, such as ``3 of 1,200``."""
    return f"{len(part):,} of {len(whole):,}"


def wrap(text: str, start: str, width: int) -> list[str]:
    """Wrap each line of a text after a start, and keep commands and paths intact."""
    indent, width = " " * len(start), max(width, len(start) + 30)
    kept = dict(break_long_words=False, break_on_hyphens=False)
    lines: list[str] = []
    for line in printable(text).splitlines():
        first = indent if lines else start
        ends = dict(initial_indent=first, subsequent_indent=indent)
        lines += textwrap.wrap(line, width, **ends, **kept)
    return lines


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
