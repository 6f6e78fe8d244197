import cv2
import numpy as np
import pytest

from ghostdet.analysis.plots import COLORS, match, plot_curves, plot_detections

TRUTH = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)


@pytest.mark.parametrize(
    "boxes, right",
    [
        ([[0, 0, 10, 10], [0, 0, 10, 9]], [True, False]),  # the object is taken
        ([[0, 0, 10, 5], [20, 0, 30, 4.9]], [True, False]),  # IoU 0.5 and 0.49
        ([[40, 0, 50, 10]], [False]),
        ([], []),
    ],
)
def test_match(boxes, right):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    assert match(TRUTH, boxes, 0.5).tolist() == right
    assert not match(TRUTH[:0], boxes, 0.5).any()


@pytest.mark.parametrize("shape", [(60, 200, 3), (200, 60, 3)])
def test_plot_detections_is_landscape(shape, tmp_path):
    plot_detections(np.zeros(shape, np.uint8), TRUTH, TRUTH[:0], tmp_path / "a.png")
    height, width = cv2.imread(str(tmp_path / "a.png")).shape[:2]
    assert width == 1500 and height < width


def test_curves(tmp_path):
    """A line has its group's colour, and is not there where nothing was evaluated."""
    x, path = [0, 1], tmp_path / "curves.png"
    losses = {"a, seed 0": (x, [2, 1]), "a, seed 1": (x, [3, 2]), "b": (x, [1, 1])}
    plot_curves(losses, {"c": (x, [0.1, 0.2]), "d": ([], [])}, path, "epochs")
    image = cv2.imread(str(path))[:, :, ::-1]
    left, right = np.split(image[: len(image) * 3 // 4], 2, axis=1)

    def drawn(panel, color):
        rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        return bool((panel == rgb).all(-1).any())

    assert [drawn(left, color) for color in COLORS[:4]] == [True, True, False, False]
    assert [drawn(right, color) for color in COLORS[:4]] == [False, False, True, False]
