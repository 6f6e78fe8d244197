"""The two pictures, laid out in pixels."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ghostdet.analysis.plots import COLORS, GREEN, ORANGE

DPI = 100
MARGIN, GAP = 24, 12  # around everything, and between maps
SIDE, AISLE = 256, 32  # width of the column with the image, and room beside it
GRID = 1100, 840  # the maps' room, more where there are many
LEAST, MOST = 28, 224  # shorter side and width of a map
LINE, NUMBER = 18, 14  # heights of text, and of a map's number
THUMB = 84  # greatest side of a map in the list of pairs
CONSTANT = (221, 221, 221)  # the colour of a map without any contrast
LIGHT, GREY, DARK = "#aaaaaa", "#777777", "#222222"


def draw_pairs(
    maps: np.ndarray,
    pairs: Sequence[tuple[int, int, float]],
    image: np.ndarray,
    layer: str,
    source: str,
) -> Figure:
    """Draw all maps of a layer in a grid, and pairs of them in frames of one colour.

    Args:
        maps: ``(C, H, W)``.
        pairs: As of :func:`~ghostdet.analysis.similar_pairs`, up to six.
        image: What the network got, ``(H, W, 3)`` uint8, RGB.
        layer: The layer's name.
        source: Names of the network and the image.

    Returns:
        The figure.
    """
    count, *size = maps.shape
    grid = _Grid(count, size, lambda width: NUMBER + _height(size, width))
    thumb = _inside(size, THUMB)
    step = max(thumb[1], 2 * LINE) + 16
    sheet = _Sheet(
        (layer, f"{_counted(count, 'map')} of {_by(size)}", source),
        image,
        _notes(maps),
        grid,
        listed=2 * LINE + len(pairs) * step,
    )

    colors = {i: color for (*pair, _), color in zip(pairs, COLORS) for i in pair}
    for index, values in enumerate(maps):
        x, y = sheet.place(index)
        sheet.number(index, x, y, grid.width, colors.get(index))
        sheet.map(values, x, y + NUMBER, grid.width, colors.get(index))

    heading = "most similar pairs, |correlation|" if pairs else "no two maps that vary"
    sheet.text(MARGIN, sheet.below, heading, weight="bold")
    y = sheet.below + LINE + 8
    for (*pair, similarity), color in zip(pairs, COLORS):
        x = MARGIN
        for index in pair:
            sheet.map(maps[index], x, y, thumb[0], color)
            x += thumb[0] + 14
        middle = y + thumb[1] // 2
        sheet.text(x, middle - LINE, "{}, {}".format(*pair), color=color, weight="bold")
        sheet.text(x, middle, f"{similarity:.3f}")
        y += step
    return sheet.finish()


def draw_ghosts(
    intrinsic: np.ndarray,
    ghosts: np.ndarray,
    kernels: np.ndarray,
    origins: Sequence[int],
    image: np.ndarray,
    layer: str,
    source: str,
) -> Figure:
    """Draw each intrinsic map above the ghost maps that were made from it.

    Args:
        intrinsic: ``(m, H, W)``.
        ghosts: ``(m * (s - 1), H, W)``.
        kernels: What each ghost map was made by, ``(m * (s - 1), d, d)``.
        origins: As of :func:`~ghostdet.analysis.ghost_origins`; the ghost maps behind
            them are left out.
        image: What the network got, ``(H, W, 3)`` uint8, RGB.
        layer: The Ghost module's name.
        source: Names of the network and the image.

    Returns:
        The figure.
    """
    count, *size = intrinsic.shape
    each, made, used = len(ghosts) // count, len(ghosts), len(origins) - count
    way = 7  # from a map to a kernel

    def kernel_of(width: int) -> int:
        return min(width // 2, 48, 16 * kernels.shape[2])

    def step_of(width: int) -> int:
        """Height of a ghost map, its kernel above it and its number below it."""
        return kernel_of(width) + 2 * way + _height(size, width) + NUMBER + 4

    grid = _Grid(
        count,
        size,
        lambda width: (
            NUMBER + _height(size, width) + min(each, used) * step_of(width) + GAP
        ),
    )
    width, height, kernel = grid.width, _height(size, grid.width), kernel_of(grid.width)
    notes = [*_notes(intrinsic, ghosts), "number: channel of the output"]
    if used < made:
        notes.append(
            f"{made} ghost maps are made, of which the last {made - used} are cut off"
        )
    heading = (
        f"{_counted(count, 'intrinsic map')} of {_by(size)}, "
        f"{_counted(used, 'ghost map')}"
    )
    key = (
        ("intrinsic map", ORANGE),
        (f"cheap kernel, {_by(kernels.shape[1:])}: red +, blue −", GREY),
        ("ghost map, made by it", GREEN),
    )
    sheet = _Sheet(
        (layer, heading, source),
        image,
        notes,
        grid,
        listed=len(key) * LINE,
    )
    for n, (text, color) in enumerate(key):
        y = sheet.below + n * LINE
        sheet.frame(MARGIN + 3, y + 3, 8, 8, color)
        sheet.frame(MARGIN + 3, y + 3, 8, 8, "white", wide=0)
        sheet.text(MARGIN + 20, y, text)

    for i in range(count):
        x, y = sheet.place(i)
        sheet.number(i, x, y, width)
        y += NUMBER
        sheet.map(intrinsic[i], x, y, width, ORANGE)
        center, trunk = x + width // 2, x - GAP // 2 - 1
        top = y + height // 2
        y += height
        for j in (j for j in range(count, len(origins)) if origins[j] == i):
            middle = y + way + kernel // 2
            if each == 1:
                sheet.line((center, y), (center, middle))
            else:
                sheet.line(
                    (x - 4, top), (trunk, top), (trunk, middle), (center, middle)
                )
            sheet.line((center, middle), (center, y + kernel + 2 * way))
            sheet.kernel(kernels[j - count], center - kernel // 2, y + way, kernel)
            y += kernel + 2 * way
            sheet.map(ghosts[j - count], x, y, width, GREEN)
            y += height
            sheet.number(j, x, y + 4, width)
            y += NUMBER + 4
    return sheet.finish()


class _Grid:
    """Cells of one size, as large as there is room for.

    Args:
        count: How many.
        size: Height and width of the maps in them.
        height_of: Height of a cell by the width of a map.
    """

    def __init__(
        self, count: int, size: Sequence[int], height_of: Callable[[int], int]
    ) -> None:
        least = round(LEAST * min(max(1, size[1] / size[0]), 4))
        room, rows = GRID, 0
        while not rows:
            for self.width in range(MOST, least - 1, -1):
                columns = min(count, (room[0] + GAP) // (self.width + GAP))
                self.cell = height_of(self.width)
                needed = -(-count // columns)
                if needed * (self.cell + GAP) - GAP <= room[1]:
                    rows = needed
                    break
            room = tuple(side * 11 // 10 for side in room)
        self.columns = -(-count // rows)
        self.size = (
            self.columns * (self.width + GAP) - GAP,
            rows * (self.cell + GAP) - GAP,
        )


class _Sheet:
    """A figure with titles, an image with notes on the left, and a grid beside it.

    Maps are set pixel by pixel; what is drawn over them is given in pixels, too, from
    the top left.

    Args:
        titles: Lines above all, the first in bold.
        image: ``(H, W, 3)`` uint8.
        notes: Texts below the image.
        grid: What is beside it.
        listed: Height of what will be drawn at ``below``, under the notes.
    """

    def __init__(
        self,
        titles: Sequence[str],
        image: np.ndarray,
        notes: Sequence[str],
        grid: _Grid,
        listed: int,
    ) -> None:
        self.grid = grid
        width = max(2 * MARGIN + SIDE + AISLE + grid.size[0], 720)
        first, *others = titles
        others = [part for line in others for part in _wrapped(line, width)]
        notes = [part for note in notes for part in _wrapped(note, SIDE)]
        self.top = MARGIN + 26 + LINE * len(others) + 16
        shown = _inside(image.shape[:2], SIDE)
        self.below = self.top + shown[1] + 10 + LINE * len(notes) + 16
        height = max(self.top + grid.size[1], self.below + listed) + MARGIN

        self.pixels = np.full((height, width, 3), 255, np.uint8)
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.axis("off")
        self.text(MARGIN, MARGIN - 4, first, pixels=19, weight="bold")
        for n, line in enumerate(others):
            self.text(MARGIN, MARGIN + 26 + n * LINE, line)
        self._paste(_resized(image, *shown), MARGIN, self.top)
        for n, line in enumerate(notes):
            y = self.top + shown[1] + 10 + n * LINE
            self.text(MARGIN, y, line, color=GREY)

    def place(self, index: int) -> tuple[int, int]:
        """The top left of a cell of the grid."""
        row, column = divmod(index, self.grid.columns)
        return (
            MARGIN + SIDE + AISLE + column * (self.grid.width + GAP),
            self.top + row * (self.grid.cell + GAP),
        )

    def map(
        self, values: np.ndarray, x: int, y: int, width: int, color: str | None
    ) -> None:
        """Draw a map, from its lowest value to its highest, in a frame."""
        height = _height(values.shape, width)
        low, high = values.min(), values.max()
        if low == high:
            picture = np.full((height, width, 3), CONSTANT, np.uint8)
        else:
            scaled = (values.astype(np.float64) - low) / (np.float64(high) - low)
            picture = _colored(_resized(scaled, width, height), "viridis")
        if color is not None:
            self.frame(x, y, width, height, color)
        self._paste(picture, x, y)

    def kernel(self, weights: np.ndarray, x: int, y: int, side: int) -> None:
        """Draw a kernel, white where it is 0."""
        scale = 2 * np.abs(weights).max() or 1
        cells = _colored(weights / scale + 0.5, "RdBu_r")
        rows, columns = (np.arange(side) * n // side for n in weights.shape)
        self.frame(x, y, side, side, GREY, wide=1)
        self._paste(cells[rows[:, None], columns], x, y)

    def number(
        self, index: int, x: int, y: int, width: int, color: str | None = None
    ) -> None:
        """Write a map's number over the middle of its width."""
        weight = "normal" if color is None else "bold"
        self.text(
            x + width / 2, y, str(index), color or GREY, 11, ha="center", weight=weight
        )

    def text(
        self, x: float, y: float, text: str, color: str = DARK, pixels: int = 12, **kw
    ) -> None:
        """Write a line whose top is at y."""
        # A file's name may hold what Matplotlib would take for a formula.
        self.axes.text(
            x,
            y,
            text,
            color=color,
            size=pixels * 72 / DPI,
            va="top",
            parse_math=False,
            **kw,
        )

    def frame(
        self, x: int, y: int, width: int, height: int, color: str, wide: int = 3
    ) -> None:
        """Fill a rectangle and a frame around it, for what is pasted upon it."""
        box = np.s_[y - wide : y + height + wide, x - wide : x + width + wide]
        self.pixels[box] = np.round(np.array(to_rgb(color)) * 255)

    def line(self, *points: tuple[int, int]) -> None:
        """Draw a line from point to point, down or to the side."""
        for (x, y), (to_x, to_y) in zip(points, points[1:]):
            (x, to_x), (y, to_y) = sorted((x, to_x)), sorted((y, to_y))
            self.frame(x, y, to_x - x + 1, to_y - y + 1, LIGHT, wide=0)

    def finish(self) -> Figure:
        """The figure, with all that was set in pixels."""
        height, width = self.pixels.shape[:2]
        self.axes.imshow(
            self.pixels, extent=(0, width, height, 0), interpolation="none", zorder=0
        )
        return self.figure

    def _paste(self, picture: np.ndarray, x: int, y: int) -> None:
        height, width = picture.shape[:2]
        self.pixels[y : y + height, x : x + width] = picture


def _notes(*maps: np.ndarray) -> list[str]:
    notes = [
        "each map: from its lowest value (dark) to its highest (bright)",
    ]
    constant = sum(int((part.min((1, 2)) == part.max((1, 2))).sum()) for part in maps)
    if constant:
        notes.append(f"grey: {constant} of one value throughout")
    return notes


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width // 7)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _by(size: Sequence[int]) -> str:
    return "{} × {}".format(*size)


def _height(size: Sequence[int], width: int) -> int:
    """Of a picture of some height and width that is drawn at another width."""
    return max(1, round(size[0] * width / size[1]))


def _inside(size: Sequence[int], side: int) -> tuple[int, int]:
    """Width and height of a picture that fits in a square."""
    width = min(side, max(1, round(side * size[1] / size[0])))
    return width, min(side, _height(size, width))


def _resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Means over areas; where enlarged, of pixels that stay squares."""
    times = (
        -(-height // picture.shape[0]),
        -(-width // picture.shape[1]),
    )
    large = picture.repeat(times[0], axis=0).repeat(times[1], axis=1)
    return cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)


def _colored(values: np.ndarray, name: str) -> np.ndarray:
    return colormaps[name](values, bytes=True)[..., :3]
