"""What a run leaves for people to look at: curves and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from mmdet.evaluation import bbox_overlaps

# Of Okabe and Ito's palette, which colour-blind people can tell apart.
BLUE, ORANGE, GREEN, YELLOW = "#0072B2", "#D55E00", "#009E73", "#F0E442"


def read_scalars(work_dir: str | Path) -> list[dict[str, float]]:
    """Read what MMEngine's ``LocalVisBackend`` logged in the latest run.

    Args:
        work_dir: Work directory of a run.

    Returns:
        One dict a log line: ``step`` and losses, learning rate and seconds an
        iteration (``time``) in training, metrics such as ``coco/bbox_mAP`` after a
        validation.
    """
    file = max(Path(work_dir).glob("*/vis_data/scalars.json"))
    return [json.loads(line) for line in file.read_text().splitlines()]


def plot_curves(scalars: Sequence[dict[str, float]], path: str | Path) -> None:
    """Draw loss, AP and AP50 over minutes of training as a PNG.

    Args:
        scalars: From :func:`read_scalars`, of a run that counts iterations.
        path: The file to write.
    """
    minutes, losses, validations = [], [], []
    elapsed, last_step = 0.0, 0
    for row in scalars:
        if "loss" in row:
            elapsed += row["time"] * (row["step"] - last_step) / 60
            last_step = row["step"]
            minutes.append(elapsed)
            losses.append(row["loss"])
        elif "coco/bbox_mAP" in row:
            validations.append((elapsed, row["coco/bbox_mAP"], row["coco/bbox_mAP_50"]))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(minutes, losses, color=BLUE)
    left.set(title="Training loss", xlabel="minutes of training", ylim=(0, None))
    if validations:
        at, ap, ap50 = zip(*validations)
        for values, label, color in ((ap50, "AP50", ORANGE), (ap, "AP", GREEN)):
            right.plot(at, values, "o-", color=color, label=label)
            right.annotate(
                f"{values[-1]:.3f}",
                (at[-1], values[-1]),
                xytext=(0, 6),
                textcoords="offset points",
                ha="right",
            )
        right.legend(loc="upper left")
    right.set(title="Held-out AP", xlabel="minutes of training", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def plot_detections(
    image: np.ndarray,
    truth: np.ndarray,
    boxes: np.ndarray,
    path: str | Path,
    title: str = "",
    iou_thr: float = 0.5,
) -> None:
    """Draw ground truth and detections side by side as a PNG.

    A detection is right if it overlaps an object, not taken by one before it, by
    ``iou_thr`` or more, as in COCO's AP50.

    Args:
        image: ``(H, W, 3)`` uint8, RGB. Drawn on its side if it is tall.
        truth: ``(T, 4)`` x1, y1, x2, y2 in px.
        boxes: ``(D, 4)`` likewise, best score first.
        path: The file to write.
        title: Stands above the picture.
        iou_thr: Least overlap of a right detection.
    """
    right = match(truth, boxes, iou_thr)
    if image.shape[0] > image.shape[1]:
        image = np.transpose(image, (1, 0, 2))
        truth, boxes = truth[:, [1, 0, 3, 2]], boxes[:, [1, 0, 3, 2]]
    height, width = image.shape[:2]
    inches, header = 15.0, 0.4  # width of the figure, and room above each panel
    panel = inches * height / width
    total = 2 * (panel + header) + header
    figure = Figure(figsize=(inches, total))
    figure.suptitle(title, y=1 - 0.1 / total, fontsize=14)
    panels = (
        (f"{len(truth)} labelled", ((truth, YELLOW, "labelled"),)),
        (
            f"{len(boxes)} detected",
            (
                (boxes[right], GREEN, f"{right.sum()} right (IoU {iou_thr} or more)"),
                (boxes[~right], ORANGE, f"{(~right).sum()} wrong"),
            ),
        ),
    )
    for row, (heading, groups) in enumerate(panels):
        bottom = (1 - row) * (panel + header)
        axes = figure.add_axes((0, bottom / total, 1, panel / total))
        axes.imshow(image, aspect="auto")
        axes.set_title(" " + heading, loc="left")
        axes.axis("off")
        for group, color, _ in groups:
            rectangles = [
                Rectangle((x1, y1), x2 - x1, y2 - y1) for x1, y1, x2, y2 in group
            ]
            axes.add_collection(
                PatchCollection(
                    rectangles, facecolor="none", edgecolor=color, linewidth=1.5
                ),
                autolim=False,
            )
        handles = [Line2D([], [], color=c, label=label) for _, c, label in groups]
        axes.legend(
            handles=handles,
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=2,
            frameon=False,
            borderaxespad=0.2,
        )
    figure.savefig(path, dpi=100)


def match(truth: np.ndarray, boxes: np.ndarray, iou_thr: float) -> np.ndarray:
    """Tell which boxes find an object that none before them found.

    Args:
        truth: ``(T, 4)`` x1, y1, x2, y2.
        boxes: ``(D, 4)`` likewise, best score first.
        iou_thr: Least overlap.

    Returns:
        ``(D,)`` bool.
    """
    right = np.zeros(len(boxes), bool)
    if not len(truth) or not len(boxes):
        return right
    overlaps = bbox_overlaps(boxes, truth)
    for index, row in enumerate(overlaps):
        best = row.argmax()
        if row[best] >= iou_thr:
            right[index] = True
            overlaps[:, best] = -1
    return right
