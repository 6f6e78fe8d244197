"""Tiles of large images."""

from __future__ import annotations

from collections.abc import Iterator

Window = tuple[int, int, int, int]  # x1, y1, x2, y2 in px


def tiles(window: Window, tile: int, overlap: int) -> Iterator[Window]:
    """Cover a part of an image with evenly spread tiles, row by row.

    Args:
        window: The part.
        tile: Width and height of a tile in px, less where the part is smaller.
        overlap: Least overlap of neighbours in px.

    Example:
        >>> list(tiles((0, 0, 700, 300), 400, 100))
        [(0, 0, 400, 300), (300, 0, 700, 300)]
    """
    left, top, right, bottom = window
    for y in _starts(top, bottom, tile, overlap):
        for x in _starts(left, right, tile, overlap):
            yield x, y, min(x + tile, right), min(y + tile, bottom)


def _starts(first: int, end: int, tile: int, overlap: int) -> list[int]:
    """Starts of the fewest tiles that cover a line with that overlap."""
    rest = max(0, end - first - tile)
    steps = -(-rest // (tile - overlap))
    return [first + round(i * rest / max(1, steps)) for i in range(steps + 1)]
