import cv2
import numpy as np
import pytest

from ghostdet.analysis.plots import match, plot_detections

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
