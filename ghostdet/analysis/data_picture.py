"""Draw the images that a detector is trained on, with their labels."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import Rectangle
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from ghostdet.engine.loops import seed_all
from ghostdet.runtime import colors_of
from ghostdet.utils.files import atomic_outputs

_IMAGES = 16
_LISTED = 20  # classes in the plots
FONT = findfont("DejaVu Sans")  # matplotlib brings it along


def draw_data(cfg: Config, out: str | Path) -> Path:
    """Draw up to sixteen training images, classes and sizes of boxes as a PNG."""
    init_default_scope("mmdet")
    seed_all(0)  # the choice of images, and their augmentation
    with redirect_stdout(StringIO()):  # pycocotools prints
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    classes = dataset.metainfo["classes"]
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    own = [i for i, info in enumerate(infos) if info["instances"]]
    chosen = random.sample(own, min(_IMAGES, len(own)))
    columns = math.ceil(math.sqrt(len(chosen))) or 1
    rows = math.ceil(len(chosen) / columns) or 1
    figure = Figure(figsize=(16, max(11 * rows / columns, 6)), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(3, 1))
    panels = left.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, index in zip(panels, sorted(chosen)):
        sample = dataset[index]
        axes.imshow(sample["inputs"].numpy().transpose(1, 2, 0)[..., ::-1])
        axes.set_title(Path(sample["data_samples"].img_path).name[-28:], fontsize=8)
        objects = sample["data_samples"].gt_instances
        boxes = getattr(objects.bboxes, "tensor", objects.bboxes).tolist()
        for (x1, y1, x2, y2), label in zip(boxes, objects.labels.tolist()):
            color, ink = colors_of(label)
            box = Rectangle((x1, y1), x2 - x1, y2 - y1, ec=color, fill=False, lw=1.5)
            axes.add_patch(box)
            height, width = sample["inputs"].shape[1:]
            at_left, at_top = x1 + x2 < width, y1 < height / 20  # to stay inside
            place = dict(x=x1, ha="left") if at_left else dict(x=x2, ha="right")
            place.update(y=y1, va="top" if at_top else "bottom")
            text = dict(color=ink, fontsize=7, clip_on=True)
            back = dict(facecolor=color, edgecolor="none", pad=0.8)
            name = picture_name(classes, label)
            axes.text(s=name, bbox=back, parse_math=False, **place, **text)
    bars, scatter = right.subplots(2, 1)
    counts = Counter(i["bbox_label"] for info in infos for i in info["instances"])
    shown = [label for label, _ in counts.most_common(_LISTED)]
    names = [picture_name(classes, label) for label in shown]
    colors = [colors_of(label)[0] for label in shown]
    bars.barh(range(len(shown)), [counts[label] for label in shown], color=colors)
    bars.set_yticks(range(len(shown)), names, fontsize=8)
    bars.set_ylim(max(len(shown), 8) - 0.5, -0.5)  # the first at the top
    bars.bar_label(bars.containers[0], fontsize=8, padding=2)
    total = f"{sum(counts.values()):,} objects in {len(infos):,} training images"
    bars.set_title(total, fontsize=10)
    sizes = [_scale(info, cfg) for info in infos]
    for label in shown:
        points = np.array(
            [
                (scale[0] * (b[2] - b[0]), scale[1] * (b[3] - b[1]))
                for info, scale in zip(infos, sizes)
                for i in info["instances"]
                if i["bbox_label"] == label
                for b in [i["bbox"]]
            ]
        )
        scatter.scatter(*points.T, s=4, alpha=0.4, color=colors_of(label)[0])
    scatter.set(xscale="log", yscale="log", xlabel="width in px", ylabel="height in px")
    scatter.set_title("Boxes at the network's size", fontsize=10)
    scatter.tick_params(which="both", labelsize=7)
    scatter.grid(alpha=0.3)
    for axes in (bars, scatter):
        axes.spines[["top", "right"]].set_visible(False)
    out = Path(out)
    with atomic_outputs(out) as folder:
        figure.savefig(folder / out.name, dpi=100)
    return out


def picture_name(classes: Sequence[str], label: int, limit: int = 24) -> str:
    """Return a class's name for a picture, its end cut off beyond ``limit`` characters.

    A name in a script that matplotlib's font lacks, such as Chinese, becomes ``#``
    and the number of the class, counted from 1.

    Example:
        >>> [picture_name(("кот", "猫", "lighthouse"), i, 6) for i in range(3)]
        ['кот', '#2', 'light…']
    """
    name = classes[label]
    font = get_font(FONT)
    if not all(font.get_char_index(ord(character)) for character in name):
        return f"#{label + 1}"
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def _scale(info: dict, cfg: Config) -> tuple[float, float]:
    """Return the factors of an image's width and height."""
    size = cfg.get("image_size", (info["width"], info["height"]))
    width, height = (size, size) if isinstance(size, int) else size
    return width / info["width"], height / info["height"]
