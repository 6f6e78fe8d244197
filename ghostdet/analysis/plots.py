"""What a run leaves for people to look at: curves and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from mmdet.evaluation import bbox_overlaps

# Of Okabe and Ito's palette, which colour-blind people can tell apart.
BLUE, ORANGE, GREEN, YELLOW = "#0072B2", "#D55E00", "#009E73", "#F0E442"
COLORS = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":")

Line = tuple[Sequence[float], Sequence[float]]


def plot_curves(
    losses: Mapping[str, Line],
    metrics: Mapping[str, Line],
    path: str | Path,
    over: str,
    held_out: str = "Held-out AP",
) -> None:
    """Draw losses and metrics, side by side, as a PNG.

    Args:
        losses: Labelled lines, of x and y. A line has the colour of its label up to the
            first comma, and those that share it are dashed in different ways.
        metrics: Likewise, 0 or more, empty if there are none.
        path: The file to write.
        over: What x is.
        held_out: Title of the metrics.
    """
    groups = list(dict.fromkeys(label.split(",")[0] for label in (*losses, *metrics)))
    height = 3.6 + 0.1 * len(metrics)  # the legend's, in two columns
    figure = Figure(figsize=(9, height), layout="constrained")
    panels = figure.subplots(1, 2)
    headings = (("Training loss", losses), (held_out, metrics))
    for axes, (title, lines) in zip(panels, headings):
        used = dict.fromkeys(groups, 0)
        for label, (x, y) in lines.items():
            group = label.split(",")[0]
            dashes = DASHES[used[group] % len(DASHES)]
            used[group] += 1
            axes.plot(
                x,
                y,
                dashes,
                marker="o" if axes is panels[1] else "",
                markersize=4,
                color=COLORS[groups.index(group) % len(COLORS)],
                label=f"{label}: {y[-1]:.3f}" if len(y) else label,
            )
        axes.set(title=title, xlabel=over, ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    shown = panels[1].get_legend_handles_labels()
    figure.legend(*shown, loc="outside lower center", ncols=2, fontsize="small")
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
