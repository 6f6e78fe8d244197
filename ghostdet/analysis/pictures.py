"""The two pictures of feature maps, as matplotlib figures."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ghostdet.analysis.plots import COLORS, GREEN, ORANGE

GAP = 0.12  # between maps, in widths of a map
NUMBER = 0.2  # height of a map's number, in the same unit
WIDTH, ASIDE = 10.0, 2.6  # inches: grid and image
GREY, CONSTANT = "#777777", "#dddddd"


def draw_pairs(
    maps: np.ndarray,
    pairs: Sequence[tuple[int, int, float]],
    image: np.ndarray,
    titles: Sequence[str],
) -> Figure:
    """Draw all maps of a layer in a grid, and frame similar pairs in one colour.

    Args:
        maps: ``(C, H, W)``.
        pairs: Result of :func:`~ghostdet.analysis.similar_pairs`, up to six.
        image: The network's input, ``(H, W, 3)`` uint8, RGB.
        titles: Lines above the picture.
    """
    height = maps.shape[1] / maps.shape[2]
    legend = [(_counted(maps, "map"), "black"), *_notes(maps)]
    legend += [("most similar pairs, |correlation|:", "black")] if pairs else []
    legend += [(f"{i}, {j}: {s:.3f}", c) for (i, j, s), c in zip(pairs, COLORS)]
    axes, place = _sheet(len(maps), height + NUMBER, image, titles, legend)
    colors = {i: color for (*pair, _), color in zip(pairs, COLORS) for i in pair}
    for index, values in enumerate(maps):
        _show(axes, values, *place(index), index, colors.get(index))
    return axes.figure


def draw_ghosts(
    intrinsic: np.ndarray,
    ghosts: np.ndarray,
    kernels: np.ndarray,
    origins: Sequence[int],
    image: np.ndarray,
    titles: Sequence[str],
) -> Figure:
    """Draw each intrinsic map above the ghost maps made from it, in one box.

    Args:
        intrinsic: ``(m, H, W)``.
        ghosts: ``(m * (s - 1), H, W)``.
        kernels: The kernel of each ghost map, ``(m * (s - 1), d, d)``.
        origins: Result of :func:`~ghostdet.analysis.ghost_origins`. Ghost maps beyond
            its length are cut off, and not drawn.
        image: The network's input, ``(H, W, 3)`` uint8, RGB.
        titles: Lines above the picture.
    """
    count, side = len(intrinsic), 0.3  # side of a kernel, in widths of a map
    ghosts = ghosts[: len(origins) - count]
    height = intrinsic.shape[1] / intrinsic.shape[2]
    step = height + side + NUMBER + 0.1
    rows = max(origins[count:].count(i) for i in range(count))
    legend = [
        (_counted(intrinsic, "intrinsic map"), ORANGE),
        (_counted(ghosts, "ghost map"), GREEN),
        (
            "A box holds an intrinsic map and the ghost maps made from it, each below "
            "its kernel (red +, blue −).",
            GREY,
        ),
        *_notes(intrinsic, ghosts),
    ]
    block = height + NUMBER + rows * step
    axes, place = _sheet(count, block, image, titles, legend)
    for i in range(count):
        x, y = place(i)
        box = (x - GAP / 3, y), 1 + 2 * GAP / 3, block + 0.03
        axes.add_patch(Rectangle(*box, color="#eeeeee", zorder=0, clip_on=False))
        _show(axes, intrinsic[i], x, y, i, ORANGE)
        y += height + NUMBER
        for j in (j for j in range(count, len(origins)) if origins[j] == i):
            kernel = kernels[j - count]
            limit = np.abs(kernel).max() or 1
            left, top = x + (1 - side) / 2, y + 0.02
            axes.imshow(
                kernel,
                "RdBu_r",
                Normalize(-limit, limit),
                extent=(left, left + side, top + side, top),
            )
            _show(axes, ghosts[j - count], x, y + side + 0.08, j, GREEN)
            y += step
    return axes.figure


def _sheet(
    count: int,
    block: float,
    image: np.ndarray,
    titles: Sequence[str],
    legend: Sequence[tuple[str, str]],
) -> tuple[Axes, Callable[[int], tuple[float, float]]]:
    """Make a figure: the image and a legend on the left, axes for a grid on the right.

    Cells and axes are measured in widths of a map. The function places a cell in them.
    """
    columns = min(count, math.ceil(math.sqrt(1.3 * count * (block + GAP))))
    width, height = columns * (1 + GAP), -(-count // columns) * (block + GAP)
    inch = min(2.0, WIDTH / width)
    size = ASIDE + 0.3 + width * inch, height * inch  # tight margins fit the rest
    figure = Figure(figsize=size, dpi=100)
    shown = ASIDE * min(1, image.shape[0] / image.shape[1])
    left = figure.add_axes((0, 1 - shown / size[1], ASIDE / size[0], shown / size[1]))
    left.imshow(image)
    axes = figure.add_axes((1 - width * inch / size[0], 0, width * inch / size[0], 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    for part in (left, axes):
        part.set_anchor("NW")
        part.axis("off")
    # matplotlib would read a $ in a file's name as the start of a formula.
    text = partial(figure.text, 0, va="top", parse_math=False)
    for number, line in enumerate(reversed(titles), 1):
        bold = number == len(titles)
        y = 1 + (0.22 * number + 0.1 * (1 + bold)) / size[1]
        text(y, line, size=14 if bold else 9, weight="bold" if bold else "normal")
    y = 1 - (shown + 0.15) / size[1]
    for paragraph, color in legend:
        for line in textwrap.wrap(paragraph, 40):
            text(y, line, size=9, color=color)
            y -= 0.18 / size[1]
        y -= 0.05 / size[1]
    return axes, lambda i: (i % columns * (1 + GAP), i // columns * (block + GAP))


def _show(
    axes: Axes, values: np.ndarray, x: float, y: float, number: int, color: str | None
) -> None:
    """Draw a map one unit wide, its number below it and a frame of its colour."""
    height = values.shape[0] / values.shape[1]
    if values.min() == values.max():
        axes.add_patch(Rectangle((x, y), 1, height, color=CONSTANT))
    else:
        axes.imshow(values, extent=(x, x + 1, y + height, y))
    if color is not None:
        style = dict(fill=False, edgecolor=color, linewidth=3, clip_on=False)
        axes.add_patch(Rectangle((x, y), 1, height, **style))
    points = 72 * axes.figure.get_figwidth() * axes.get_position().width
    size = min(9, 0.8 * NUMBER * points / axes.get_xlim()[1])
    weight, color = ("normal", GREY) if color is None else ("bold", color)
    style = dict(size=size, color=color, weight=weight, ha="center", va="top")
    axes.text(x + 0.5, y + height + NUMBER / 6, str(number), **style)


def _notes(*maps: np.ndarray) -> list[tuple[str, str]]:
    notes = [("Each map is scaled from its lowest value (dark) to its highest.", GREY)]
    constant = sum(int((part.min((1, 2)) == part.max((1, 2))).sum()) for part in maps)
    if constant:
        notes.append((f"Grey: {constant} constant maps.", GREY))
    return notes


def _counted(maps: np.ndarray, what: str) -> str:
    count, height, width = maps.shape
    return f"{count} {what}{'s' * (count != 1)} of {height} × {width}"
