import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from ghostdet.analysis.plots import plot_detections

TRUTH = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)


@pytest.mark.parametrize(
    "boxes, right, wrong",
    [
        ([[0, 0, 10, 10], [0, 0, 10, 9]], 1, 1),  # the object is taken
        ([[0, 0, 10, 5], [20, 0, 30, 4.9]], 1, 1),  # IoU 0.5 and 0.49
        ([[40, 0, 50, 10]], 0, 1),
        ([], 0, 0),
    ],
)
def test_right_and_wrong(boxes, right, wrong, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *_, **__: drawn.append(figure)
    )
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    plot_detections(np.zeros((20, 60, 3), np.uint8), TRUTH, boxes, "a.png")
    legend = drawn[0].axes[1].get_legend().get_texts()
    expected = [f"{right} right (IoU 0.5 or more)", f"{wrong} wrong"]
    assert [text.get_text() for text in legend] == expected


@pytest.mark.parametrize("shape", [(60, 200, 3), (200, 60, 3)])
def test_plot_detections_is_landscape(shape, tmp_path):
    plot_detections(np.zeros(shape, np.uint8), TRUTH, TRUTH[:0], tmp_path / "a.png")
    height, width = cv2.imread(str(tmp_path / "a.png")).shape[:2]
    assert width == 1500 and height < width
