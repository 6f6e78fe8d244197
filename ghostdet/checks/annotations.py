"""Annotation files in COCO's format, read into columns."""

from __future__ import annotations

import gc
import json
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from mmengine import fileio

from ghostdet.checks.findings import Finding
from ghostdet.utils.text import shorten

# The keys without which CocoDataset.parse_data_info or pycocotools fails.
COCO_KEYS = {
    "images": {"id", "file_name", "width", "height"},
    "annotations": {"id", "image_id", "category_id", "bbox", "area"},
    "categories": {"id", "name"},
}
_SAMPLE = 8  # images whose raw entries are kept


@dataclass
class CocoFile:
    """The columns of an annotation file with I images and A annotations.

    Arrays, since a small object that is kept holds the memory of all that were parsed
    around it.

    Attributes:
        path: The file.
        unlabelled: It has no list of annotations.
        categories: Ids of the categories, in the order of the file.
        names: Their names.
        images: ``(I,)`` int64, or object where they are text, ids of the images.
        file_names: ``(I,)`` str, their files.
        sizes: ``(I, 2)`` float64, width and height in px.
        annotations: ``(A,)`` int64 or object, ids of the annotations.
        image: ``(A,)`` int64, which of the images; -1 for none of them.
        category: ``(A,)`` int64, which of the categories; -1 for none.
        category_ids: ``(A,)`` int64 or object, the annotations' ``category_id``.
        boxes: ``(A, 4)`` float64, x, y, width, height in px.
        areas: ``(A,)`` float64.
        crowd: ``(A,)`` int8, ``iscrowd``; -1 where it is missing or null.
        sample: Raw entries of some images with annotations, and of these, as JSON.
    """

    path: str
    unlabelled: bool
    categories: list
    names: list[str]
    images: np.ndarray
    file_names: np.ndarray
    sizes: np.ndarray
    annotations: np.ndarray
    image: np.ndarray
    category: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    sample: str


#: Annotation files that were read, or why they cannot be, by path.
Files = dict[str, "CocoFile | Finding"]


def read_coco(path: str, files: Files, backend_args: dict | None = None) -> Any:
    """Read an annotation file, once.

    Args:
        path: The file.
        files: Those that were read, to which it is added.
        backend_args: Of its file backend.

    Returns:
        A :class:`CocoFile`, or a :class:`Finding` of why it cannot be read as one.
    """
    if path not in files:
        collecting = gc.isenabled()
        gc.disable()  # it would look through a million entries again and again
        try:
            files[path] = _read_coco(path, backend_args)
        finally:
            if collecting:
                gc.enable()
    return files[path]


def _read_coco(path: str, backend_args: dict | None) -> CocoFile | Finding:
    def fail(text: str, remedy: str) -> Finding:
        return Finding("annotations", "fail", f"{path}: {text}", remedy)

    try:
        coco = json.loads(fileio.get(path, backend_args))
    except json.JSONDecodeError as err:
        return fail(
            f"not JSON: line {err.lineno}, column {err.colno}: {err.msg}",
            "Expected COCO annotations; download or export the file again",
        )
    except UnicodeDecodeError as err:
        return fail(
            f"not JSON but binary data ({err.reason} at byte {err.start})",
            "Expected COCO annotations; give the .json file as ann_file",
        )
    found = coco if isinstance(coco, dict) else {}
    missing = [key for key in COCO_KEYS if not isinstance(found.get(key), list)]
    unlabelled = bool(found) and "annotations" not in found
    if missing and not (unlabelled and missing == ["annotations"]):
        kind = f"keys {shorten(list(coco))}" if found else type(coco).__name__
        return fail(
            f"JSON but not COCO annotations: no list {', '.join(missing)} (found "
            f"{kind})",
            f"Expected an object with the lists {', '.join(COCO_KEYS)}",
        )
    coco.setdefault("annotations", [])
    for name, keys in COCO_KEYS.items():
        for i, entry in enumerate(coco[name]):
            if not isinstance(entry, dict) or not keys <= entry.keys():
                return fail(
                    f"JSON but not COCO annotations for detection: {name}[{i}] is "
                    f"{json.dumps(entry)[:100]}",
                    f"Expected an object with the keys {', '.join(sorted(keys))}",
                )
    images, annotations, categories = (coco[name] for name in COCO_KEYS)
    for name, key in (
        *((name, "id") for name in COCO_KEYS),
        ("annotations", "image_id"),
        ("annotations", "category_id"),
    ):
        others = {type(entry[key]) for entry in coco[name]} - {int, float, str}
        if others:
            wrong = next(e[key] for e in coco[name] if type(e[key]) in others)
            return fail(
                f"the {key} of an entry in {name} is {json.dumps(wrong):.100}",
                "Expected a number",
            )
    # All at once; one by one would take seconds.
    if not _have_sizes(images):
        wrong = next(image for image in images if not _have_sizes([image]))
        return fail(
            f"width and height of image {wrong['id']} are {wrong['width']!r} and "
            f"{wrong['height']!r}",
            "Expected numbers of px",
        )
    for image in images:
        if type(image["file_name"]) is not str:
            return fail(
                f"file_name of image {image['id']} is {image['file_name']!r}",
                "Expected the path of its file",
            )
    if not _are_boxes(annotations):
        wrong = next(entry for entry in annotations if not _are_boxes([entry]))
        return fail(
            f"annotation {wrong['id']} has bbox {json.dumps(wrong['bbox'])[:100]} and "
            f"area {json.dumps(wrong['area'])[:20]}",
            "Expected [x, y, width, height] in px, and a number",
        )
    category_ids = [annotation["category_id"] for annotation in annotations]
    image_index = {image["id"]: i for i, image in enumerate(images)}
    category_index = {category["id"]: i for i, category in enumerate(categories)}
    image = _column([image_index.get(a["image_id"], -1) for a in annotations], "int64")
    boxes = _column(list(chain.from_iterable(a["bbox"] for a in annotations)))
    shown = np.unique(image[image >= 0])
    chosen = shown[:: len(shown) // _SAMPLE + 1].tolist()
    of_image: dict[int, list] = {i: [] for i in chosen}
    for position in np.flatnonzero(np.isin(image, chosen)).tolist():
        of_image[int(image[position])].append(annotations[position])
    return CocoFile(
        path=path,
        unlabelled=unlabelled,
        categories=[category["id"] for category in categories],
        names=[category["name"] for category in categories],
        images=_ids(images, "id"),
        file_names=np.array([image["file_name"] for image in images], str),
        sizes=_column([(i["width"], i["height"]) for i in images]).reshape(-1, 2),
        annotations=_ids(annotations, "id"),
        image=image,
        category=_column([category_index.get(i, -1) for i in category_ids], "int64"),
        category_ids=_ids(annotations, "category_id"),
        boxes=boxes.reshape(-1, 4),
        areas=_column([annotation["area"] for annotation in annotations]),
        crowd=_column(
            [
                -1 if a.get("iscrowd") is None else bool(a["iscrowd"])
                for a in annotations
            ],
            "int8",
        ),
        sample=json.dumps([(images[i], entries) for i, entries in of_image.items()]),
    )


def _ids(entries: list[dict], key: str) -> np.ndarray:
    """Identifiers: numbers, or whatever they are."""
    values = [entry[key] for entry in entries]
    return np.array(values, "int64" if set(map(type, values)) <= {int} else "object")


def _column(values: list, dtype: str = "float64") -> np.ndarray:
    return np.array(values, dtype)


def _have_sizes(images: list[dict]) -> bool:
    """Tell if width and height of each image are numbers."""
    sides = ("width", "height")
    return all(_are_numbers([image[side] for image in images]) for side in sides)


def _are_boxes(annotations: list[dict]) -> bool:
    """Tell if each annotation has a box of four numbers, and a number as area."""
    boxes = [annotation["bbox"] for annotation in annotations]
    return (
        set(map(type, boxes)) <= {list}
        and set(map(len, boxes)) <= {4}
        and _are_numbers(list(chain.from_iterable(boxes)))
        and _are_numbers([annotation["area"] for annotation in annotations])
    )


def _are_numbers(values: list) -> bool:
    return set(map(type, values)) <= {int, float} and bool(
        np.isfinite(np.array(values, float)).all()
    )
