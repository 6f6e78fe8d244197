"""Write a page that shows what a detector gets wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import jinja2
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ghostdet.analysis.data_picture import FONT, picture_name
from ghostdet.config import evaluator_mistakes
from ghostdet.errors import UserError
from ghostdet.evaluation.coco_metric import coco_evaluator, fix_coco_metric
from ghostdet.evaluation.errors import by_image
from ghostdet.evaluation.figures import above, detection_figures
from ghostdet.runtime import colors_of
from ghostdet.utils.components import iter_datasets, type_name
from ghostdet.utils.files import atomic_write, open_image

PAGE, FIGURES = "index.html", "figures.json"
_CELLS = 30  # the largest cells of the confusion matrix, which have crops
_WIDE, _CROP, _AROUND = 480, 96, 0.25  # px of an image and a crop, and its margin
_MEANING = {
    "classification": "on an object, of another class",
    "localisation": "of the right class, IoU 0.1 to 0.5",
    "both": "of another class, IoU 0.1 to 0.5",
    "duplicate": "on an object that was already found",
    "background": "where there is no object",
    "missed": "an object with no detection near it",
}


def write_report(cfg: Config, results: str | Path, folder: str | Path) -> Path:
    """Write a page about detections on the config's test set, and its figures.

    ::

        folder/index.html      the page, with its pictures, for any browser
        folder/figures.json    :func:`~ghostdet.evaluation.figures.detection_figures`

    Args:
        cfg: A detector's config with a COCO evaluator, which gets the annotations of
            the test dataset if it has none.
        results: COCO results, such as ``CocoMetric`` writes.
        folder: Where to write.

    Returns:
        The path of the page.

    Raises:
        UserError: If no evaluator is COCO's, or the results are not of the test set.
    """
    init_default_scope("mmdet")
    with redirect_stdout(StringIO()), evaluator_mistakes("test_evaluator"):
        parts = [d for _, d in iter_datasets(cfg.test_dataloader.dataset)]
        datasets = [DATASETS.build(part) for part in parts]
        evaluator = coco_evaluator(cfg)
        if type_name(evaluator.type) == "FastCocoMetric":  # which numbers the images
            evaluator.type = CocoMetric
        metric = METRICS.build(evaluator)
        fix_coco_metric(metric)
    classes = datasets[0].metainfo["classes"]
    coco = metric._coco_api
    numbers = coco.get_cat_ids(cat_names=classes)
    truth = {
        "images": coco.dataset["images"],
        "categories": coco.loadCats(numbers),
        "annotations": [
            a for a in coco.dataset["annotations"] if a["category_id"] in {*numbers}
        ],
    }
    detections = _read(results, {image["id"] for image in truth["images"]}, numbers)
    paths = {}
    for dataset in datasets:
        infos = map(dataset.get_data_info, range(len(dataset)))
        paths |= {info["img_id"]: info["img_path"] for info in infos}
    figures = detection_figures(truth, detections)
    names = [row["name"] for row in figures["classes"]] + ["background"]
    last = len(names) - 1
    matrix = figures["confusion"]["matrix"]
    cells = [tuple(map(int, c.split(","))) for c in figures["confusion"]["examples"]]
    cells = [(i, j) for i, j in cells if i != j]
    cells = sorted(cells, key=lambda c: -matrix[c[0]][c[1]])[:_CELLS]
    album = _Album(truth, detections, figures, paths)
    template = Path(__file__).with_name("report.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    page = environment.from_string(template).render(
        title=f"{Path(cfg.filename or 'detector').stem} on {len(paths):,} images",
        source=f"{results} against {evaluator.ann_file}",
        figures=figures,
        names=names,
        drawn=[(colors_of(i)[0], picture_name(names, i)) for i in range(last)],
        meaning=_MEANING,
        cells={(i, j): album.crops(i, j) for i, j in cells},
        gallery=[album.pair(image) for image in figures["images"]],
        number=_number,
        curve=_curve,
        shade=lambda count, row: round(80 * count / max(sum(row), 1)),
        heading=lambda i, j: _heading(names, i, j),
    )
    folder = Path(folder)
    atomic_write(folder / FIGURES, json.dumps(figures, indent=1))
    atomic_write(folder / PAGE, page)
    return folder / PAGE


def _read(results: str | Path, images: set, classes: Sequence[int]) -> list[dict]:
    """Read COCO results, and check that they are of these images and classes."""
    try:
        found = json.loads(Path(results).read_text("utf-8"))
        ids = {
            (d["image_id"], d["category_id"], len(d["bbox"]), type(d["score"]))
            for d in found
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{results} is not COCO's results ({type(error).__name__}: {error}); give "
            "a list of image_id, category_id, bbox and score, or a checkpoint"
        ) from error
    if not ids:
        raise UserError(f"{results} has no detection; train longer, or lower score_thr")
    for image, category, *_ in ids:
        if image not in images or category not in classes:
            raise UserError(
                f"{results} has image_id {image!r} and category_id {category!r}, which "
                "the test set does not have; give the results of this test set"
            )
    return found


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _curve(values: Sequence[float], width: int, height: int) -> str:
    """Give an SVG's points of a curve."""
    step = width / (len(values) - 1)
    points = [(i * step, height * (1 - value)) for i, value in enumerate(values)]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _heading(names: Sequence[str], row: int, column: int) -> str:
    last = len(names) - 1
    if row == last:
        return f"{names[column]} without an object"
    if column == last:
        return f"missed {names[row]}"
    return f"{names[row]} detected as {names[column]}"


class _Album:
    """Pictures of a test set, as data URLs."""

    def __init__(
        self, truth: dict, detections: list[dict], figures: dict, paths: dict
    ) -> None:
        self.paths, self.examples = paths, figures["confusion"]["examples"]
        self.classes = {row["id"]: i for i, row in enumerate(figures["classes"])}
        self.names = [row["name"] for row in figures["classes"]]
        least = {row["id"]: row["threshold"] for row in figures["classes"]}
        self.objects = by_image(truth["annotations"])
        found = sorted(detections, key=lambda d: d["score"])  # the best on top
        self.found = by_image(above(found, least))

    def _open(self, image: Any) -> Image.Image:
        with open_image(self.paths[image]) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")

    def crops(self, row: int, column: int) -> list[dict[str, str]]:
        """Cut out the objects of a cell of the confusion matrix."""
        made = []
        for image, x, y, w, h in self.examples[f"{row},{column}"]:
            if image in self.paths:
                whole, margin = self._open(image), _AROUND * max(w, h)
                left, top = (max(round(v - margin), 0) for v in (x, y))
                right = min(round(x + w + margin), whole.width)
                bottom = min(round(y + h + margin), whole.height)
                if right <= left or bottom <= top:  # a box beside the image
                    continue
                crop = whole.crop((left, top, right, bottom))
                scale = min(2 * _CROP / crop.width, _CROP / crop.height)
                crop = crop.resize([max(round(s * scale), 1) for s in crop.size])
                inner = (x - left, y - top, x - left + w, y - top + h)
                inner = [value * scale for value in inner]
                ImageDraw.Draw(crop).rectangle(inner, outline="#E69F00", width=2)
                name = Path(self.paths[image]).name
                made.append(dict(picture=_data_url(crop), name=name))
        return made

    def pair(self, image: dict) -> dict[str, Any]:
        """Draw an image with its labels, beside itself with its detections."""
        path = self.paths.get(image["id"], image["file_name"])
        name = Path(path).name
        found = dict(name=name, lost=image["lost"], picture="")
        if image["id"] in self.paths:
            whole = self._open(image["id"])
            scale = _WIDE / max(whole.size)
            size = tuple(max(round(side * scale), 1) for side in whole.size)
            whole = whole.resize(size)
            sheet = Image.new("RGB", (2 * size[0] + 4, size[1]), "white")
            for place, items in ((0, self.objects), (size[0] + 4, self.found)):
                part = whole.copy()
                self._draw(part, items[image["id"]], scale)
                sheet.paste(part, (place, 0))
            found["picture"] = _data_url(sheet)
        return found

    def _draw(self, picture: Image.Image, items: Sequence[dict], scale: float) -> None:
        draw, font = ImageDraw.Draw(picture), ImageFont.truetype(FONT, 11)
        labels, room = [], max(min(24, picture.width // 8 - 5), 4)
        for item in items:
            label = self.classes[item["category_id"]]
            color, ink = colors_of(label)
            x, y, w, h = (value * scale for value in item["bbox"])
            draw.rectangle((x, y, x + w, y + h), outline=color, width=2)
            text = picture_name(self.names, label, room)
            text += f" {item['score']:.2f}" if "score" in item else ""
            x = min(x, picture.width - font.getlength(text) - 2)
            labels.append(((max(x, 0) + 1, max(y - 13, 0)), text, color, ink))
        for place, text, color, ink in labels:  # over all boxes
            x1, y1, x2, y2 = draw.textbbox(place, text, font=font)
            draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), fill=color)
            draw.text(place, text, fill=ink, font=font)


def _data_url(picture: Image.Image) -> str:
    file = BytesIO()
    picture.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
