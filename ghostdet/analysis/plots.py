"""Plot the curves of training runs, and detections on an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmdet.evaluation import bbox_overlaps

from ghostdet.evaluation.errors import FOREGROUND_IOU, match

# Okabe and Ito's palette, which colour-blind people can tell apart.
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
        losses: Lines (x and y) by label. Labels that are equal up to the first comma
            share a colour and differ in their dashes.
        metrics: Lines by label, empty for a run that was not evaluated.
        path: The file to write.
        over: Label of the x axis.
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
) -> None:
    """Draw ground truth and detections side by side as a PNG.

    A detection is right if its IoU with an object is 0.5 or more and no better
    detection has found that object, as in COCO's AP50.

    Args:
        image: ``(H, W, 3)`` uint8, RGB. A tall image is drawn on its side.
        truth: ``(T, 4)``, x1, y1, x2, y2 in px.
        boxes: ``(D, 4)``, in the same form, best score first.
        path: The file to write.
        title: Line above the picture.
    """
    right = np.zeros(len(boxes), bool)
    right[list(match(bbox_overlaps(boxes, truth)).values())] = True
    if image.shape[0] > image.shape[1]:
        image = np.transpose(image, (1, 0, 2))
        truth, boxes = truth[:, [1, 0, 3, 2]], boxes[:, [1, 0, 3, 2]]
    height, width = image.shape[:2]
    size = 15, 2 * (15 * height / width + 0.4) + 0.4  # inches, with room for headings
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=14)
    right_label = f"{right.sum()} right (IoU {FOREGROUND_IOU} or more)"
    panels = {
        f"{len(truth)} labelled": [(truth, YELLOW, "labelled")],
        f"{len(boxes)} detected": [
            (boxes[right], GREEN, right_label),
            (boxes[~right], ORANGE, f"{(~right).sum()} wrong"),
        ],
    }
    for axes, (heading, groups) in zip(figure.subplots(2, 1), panels.items()):
        axes.imshow(image)
        axes.set_title(heading, loc="left")
        axes.axis("off")
        for group, color, label in groups:
            style = dict(facecolor="none", edgecolor=color, linewidth=1.5)
            for x1, y1, x2, y2 in group:
                axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **style))
            axes.plot([], [], color=color, label=label)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    figure.savefig(path, dpi=100)
