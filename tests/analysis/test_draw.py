import io

import cv2
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from PIL import Image

from ghostdet.analysis.draw import CONSTANT, draw_ghosts, draw_pairs
from ghostdet.analysis.plots import COLORS, GREEN, ORANGE

IMAGE = np.full((30, 40, 3), (250, 10, 20), np.uint8)
NAMES = dict(image=IMAGE, layer="a_layer$x$", source="a, b, c")


def pixels(figure, texts=False):
    for text in figure.axes[0].texts:
        text.set_visible(texts)
    file = io.BytesIO()
    figure.savefig(file)
    return np.asarray(Image.open(file).convert("RGB"))


def count(picture, color):
    """Pixels of a colour, by name or as RGB."""
    if isinstance(color, str):
        color = np.round(np.array(to_rgb(color)) * 255)
    return int((picture == np.array(color, np.uint8)).all(-1).sum())


def colored(value):
    return colormaps["viridis"](value, bytes=True)[:3]


def test_maps_and_frames():
    """A constant map, a pair of opposites, and one that is in no pair."""
    maps = np.zeros((4, 4, 4), np.float32)
    maps[1, :2] = 7
    maps[3] = -maps[1]
    maps[2, 0, 0], maps[2, 0, 1] = 1, 0.5
    picture = pixels(draw_pairs(maps, [(1, 3, 1.0)], **NAMES))
    # 224 px wide, and twice 84 px for the pair in the list
    assert count(picture, CONSTANT) == 224**2
    assert count(picture, COLORS[0]) >= 2 * (230**2 - 224**2)
    assert count(picture, COLORS[1]) == 0
    assert count(picture, colored(0.5)) == (224 // 4) ** 2
    bright = 224**2 + 84**2  # half of each of two maps
    assert count(picture, colored(1.0)) == bright + (224 // 4) ** 2
    assert count(picture, IMAGE[0, 0]) == 256 * 192


def test_no_pair():
    picture = pixels(draw_pairs(np.ones((1, 4, 4)), [], **NAMES))
    assert count(picture, CONSTANT) == 224**2
    assert not any(count(picture, color) for color in COLORS[:-1])


@pytest.mark.parametrize("channels, ghosts", [(12, 9), (10, 7), (4, 1)])
def test_each_map_has_its_frame(channels, ghosts):
    """Three ghost maps of each of three intrinsic ones, of which the last are cut."""
    intrinsic = np.random.default_rng(0).normal(size=(3, 4, 4))
    made = intrinsic.repeat(3, axis=0)
    kernels = np.zeros((9, 3, 3))
    kernels[:, 1, 1] = 1, -1, *[1] * 7
    origins = [0, 1, 2, *np.arange(3).repeat(3)][:channels]
    assert len(origins) - 3 == ghosts
    picture = pixels(draw_ghosts(intrinsic, made, kernels, origins, **NAMES))
    # Frames are 3 px wide; each has a mark of its colour in the key, of 8 px.
    mark = 14**2 - 8**2
    frames = [count(picture, color) - mark for color in (ORANGE, GREEN)]
    width = (frames[0] / 3 - 6**2) / 12
    assert width == int(width) and width > 28
    assert frames[1] == frames[0] / 3 * ghosts
    red, blue = colormaps["RdBu_r"]([1.0, 0.0], bytes=True)[:, :3]
    blues = int(ghosts > 1)  # of all kernels, the second
    assert count(picture, red) * blues == count(picture, blue) * (ghosts - blues)
    assert count(picture, red) > 0


def test_ghost_maps_are_below_their_intrinsic_map():
    """Each has a value of its own, which its ghost maps share."""
    maps = np.zeros((3, 4, 4))
    maps[:, 0, 0], maps[:, 1, 1] = 1, (0.3, 0.45, 0.7)
    origins = [0, 1, 2, 2, 0, 0, 1]
    made = maps[origins[3:] + [0, 0]]
    picture = pixels(draw_ghosts(maps, made, np.ones((6, 3, 3)), origins, **NAMES))
    ends = []
    for value, times in ((0.3, 3), (0.45, 2), (0.7, 2)):
        found = (picture == colored(value)).all(-1).astype(np.uint8)
        # Squares of a fourth of a map, less 4 px around, where colours may mix.
        rows, columns = np.nonzero(cv2.erode(found, np.ones((9, 9))))
        side = len(set(columns))
        assert 20 < side < 60  # one above the other
        assert len(rows) == times * side**2
        ends.append((columns.min(), columns.max()))
    assert ends == sorted(ends) and ends[0][1] < ends[1][0] < ends[1][1] < ends[2][0]


@pytest.mark.parametrize(
    "channels, size",
    [(1, (1, 40)), (16, (4, 4)), (40, (100, 10)), (72, (20, 30)), (960, (7, 7))],
)
def test_nothing_is_outside_of_the_picture(channels, size):
    maps = np.random.default_rng(0).normal(size=(channels, *size))
    figure = draw_pairs(maps, [(0, 1, 0.5)] if channels > 1 else [], **NAMES)
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    picture = pixels(figure, texts=True)
    assert picture.shape[:2] == (height, width) and max(width, height) < 2500
    assert (picture[[0, -1]] == 255).all() and (picture[:, [0, -1]] == 255).all()
    numbers = {
        text.get_text(): text.get_window_extent() for text in figure.axes[0].texts
    }
    assert {str(index) for index in range(channels)} <= numbers.keys()
    for box in numbers.values():
        assert 0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height
    boxes = sorted(
        (box.y0, box.x0, box.x1) for text, box in numbers.items() if text.isdigit()
    )
    for (y, _, end), (other, start, _) in zip(boxes, boxes[1:]):
        assert y != other or end < start  # no number runs into the next one
