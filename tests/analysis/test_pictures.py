import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from ghostdet.analysis.pictures import CONSTANT, draw_ghosts, draw_pairs
from ghostdet.analysis.plots import COLORS, GREEN, ORANGE

IMAGE = np.full((30, 40, 3), (250, 10, 20), np.uint8)
TITLES = "a_layer$x$", "a, b, c"


def frames(figure, color):
    """Left, top and height of the rectangles of a colour."""
    return [
        (*patch.get_xy(), patch.get_height())
        for patch in figure.axes[1].patches
        if isinstance(patch, Rectangle)
        and to_hex(patch.get_edgecolor()) == color.lower()
    ]


def texts(figure):
    return [text.get_text() for part in (figure, figure.axes[1]) for text in part.texts]


def test_pairs():
    """A constant map, a pair of opposites, and a map that is in no pair."""
    maps = np.zeros((4, 4, 4), np.float32)
    maps[1, :2] = 7
    maps[3] = -maps[1]
    maps[2, 0, 0] = 1
    figure = draw_pairs(maps, [(1, 3, 1.0)], IMAGE, TITLES)
    assert np.array_equal(figure.axes[0].images[0].get_array(), IMAGE)
    shown = [image.get_array() for image in figure.axes[1].images]
    assert np.array_equal(shown, maps[1:])
    assert len(frames(figure, COLORS[0])) == 2 and not frames(figure, COLORS[1])
    assert len(frames(figure, CONSTANT)) == 1
    expected = {*TITLES, "4 maps of 4 × 4", "1, 3: 1.000", "0", "1", "2", "3"}
    assert expected <= set(texts(figure))


@pytest.mark.parametrize("channels, ghosts", [(12, 9), (10, 7), (4, 1)])
def test_ghosts_are_below_their_intrinsic_map(channels, ghosts):
    """Three ghost maps of each of three intrinsic maps, the last of them cut off."""
    intrinsic = np.random.default_rng(0).normal(size=(3, 4, 4))
    origins = [0, 1, 2, *np.arange(3).repeat(3).tolist()][:channels]
    made, kernels = intrinsic.repeat(3, axis=0), np.ones((9, 3, 3))
    figure = draw_ghosts(intrinsic, made, kernels, origins, IMAGE, TITLES)
    above, below = frames(figure, ORANGE), frames(figure, GREEN)
    assert len(above) == 3 and len(below) == ghosts
    assert len(figure.axes[1].images) == 3 + 2 * ghosts  # with a kernel each
    expected = {(above[i][0], above[i][1]) for i in origins[3:]}
    for x, y, _ in below:
        parent = max(top for left, top, _ in above if left == x and top < y)
        assert (x, parent) in expected
    assert {str(i) for i in range(channels)} <= set(texts(figure))
    assert f"{ghosts} ghost map{'s' * (ghosts > 1)} of 4 × 4" in texts(figure)
