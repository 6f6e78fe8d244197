"""The AP that each kind of detection error costs, by the rules of TIDE.

TIDE: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection
Errors", ECCV 2020, https://arxiv.org/abs/2008.08115. Figures equal its published
code's, tidecv 1.0.1, up to rounding.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask

FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.1
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
# One row for each detection and each missed object.
TABLE = np.dtype(
    [
        ("kind", "U14"),  # one of KINDS, or "" for a true positive
        ("image", "O"),  # its id
        ("category", "i8"),  # the detection's or the missed object's
        ("score", "f8"),  # 0 for a missed object
        # A point of the precision-recall curve: not a missed object, nor an error
        # inside a crowd region.
        ("counts", "?"),
        # The category in which the detection is right once its error is fixed, NaN
        # where the fix takes it away.
        ("fixed_category", "f8"),
    ]
)


def costs_of(table: np.ndarray, positives: Counter) -> dict[str, float]:
    """Compute by how much AP50 would rise if one kind of error were fixed.

    Args:
        table: Result of :func:`classify`.
        positives: Number of objects of each category, without crowds.

    Returns:
        The rise for each of ``KINDS``, with AP from 0 to 1.
    """
    before = mean_ap(table, positives)
    return {k: max(mean_ap(table, positives, k) - before, 0.0) for k in KINDS}


def classify(
    ground_truth: dict, detections: Sequence[dict], most: int = 100
) -> np.ndarray:
    """Give each detection, and each missed object, its kind of error.

    Args:
        ground_truth: A COCO ground truth (the parsed JSON).
        detections: COCO results, each with image_id, category_id, bbox and score.
        most: Number of an image's best detections that count. Defaults to TIDE's.

    Returns:
        A ``TABLE``, image by image in the ground truth's order, with the detections of
        an image by falling score.
    """
    objects_of = by_image(ground_truth["annotations"])
    detections_of = by_image(detections)
    rows = []
    for image in (i["id"] for i in ground_truth["images"]):
        found = sorted(detections_of[image], key=lambda d: -d["score"])
        rows += _classify_image(image, objects_of[image], found[:most])
    return np.array(rows, TABLE)


def by_image(items: Iterable[dict]) -> dict[Any, list[dict]]:
    """Group objects or detections by image; an image without any has an empty list."""
    groups = defaultdict(list)
    for item in items:
        groups[item["image_id"]].append(item)
    return groups


def _classify_image(image: int, objects: list, found: list) -> list[tuple]:
    crowds = [o for o in objects if o.get("iscrowd")]
    objects = [o for o in objects if not o.get("iscrowd")]
    crowd_iou, same = overlaps(found, crowds)
    in_crowd = (crowd_iou * same > FOREGROUND_IOU).any(axis=1)
    iou, same = overlaps(found, objects)
    same_iou, other_iou = iou * same, iou * ~same
    nearest, nearest_other = same_iou.argmax(axis=1), other_iou.argmax(axis=1)
    finder = match(same_iou)
    true_positives = set(finder.values())

    rows = []
    fixable = set()  # missed objects that a detection finds once its error is fixed
    for i, detection in enumerate(found):
        near, other = same_iou[i, nearest[i]], other_iou[i, nearest_other[i]]
        target = None
        if i in true_positives:
            kind = ""
        elif BACKGROUND_IOU <= near <= FOREGROUND_IOU:
            kind, target = "localisation", nearest[i]
        elif other >= FOREGROUND_IOU:
            kind, target = "classification", nearest_other[i]
        elif near > FOREGROUND_IOU:
            kind = "duplicate"
        elif other <= BACKGROUND_IOU:
            kind = "background"
        else:
            kind = "both"
        fixed = None
        if target is not None and target not in finder and target not in fixable:
            fixable.add(target)  # the best-scoring detection takes the object
            fixed = objects[target]["category_id"]
        counts = not kind or not in_crowd[i]
        category, score = detection["category_id"], detection["score"]
        rows.append((kind, image, category, score, counts, fixed))
    for j, item in enumerate(objects):
        if j not in finder and j not in fixable:
            rows.append(("missed", image, item["category_id"], 0.0, False, None))
    return rows


def overlaps(found: list, objects: list) -> tuple[np.ndarray, np.ndarray]:
    """Return IoU and equal category of detections x (objects and an empty column)."""
    iou = np.zeros((len(found), len(objects) + 1))
    if found and objects:
        boxes = [np.array([x["bbox"] for x in xs], float) for xs in (found, objects)]
        iou[:, :-1] = mask.iou(*boxes, [o.get("iscrowd", 0) for o in objects])
    theirs = np.array([d["category_id"] for d in found])
    return iou, theirs[:, None] == [*(o["category_id"] for o in objects), np.nan]


def match(iou: np.ndarray) -> dict[int, int]:
    """Assign detections to objects, the best score first.

    Args:
        iou: ``(D, T)``, detections by falling score x objects.

    Returns:
        The index of the detection by the index of the object.
    """
    finder = {}
    free = iou.copy()
    for i in np.flatnonzero((iou >= FOREGROUND_IOU).any(axis=1)):
        j = free[i].argmax()
        if free[i, j] >= FOREGROUND_IOU:
            finder[j] = i
            free[:, j] = 0
    return finder


def mean_ap(table: np.ndarray, positives: Counter, fixed: str = "") -> float:
    """Return the mean AP at IoU 0.5 with one kind of error fixed.

    As in TIDE, and unlike COCO, a category that has detections but no ground truth
    has an AP of 0 rather than none.

    Args:
        table: Result of :func:`classify`.
        positives: Number of objects of each category, without crowds.
        fixed: The kind of error to fix; "" for none.
    """
    category, fixed_category = table["category"], table["fixed_category"]
    hit = table["kind"] == ""
    fix = (table["kind"] == fixed) & ~hit
    missed = Counter(category[fix].tolist()) if fixed == "missed" else Counter()
    positives = positives - missed
    # Among equal scores, TIDE puts errors first where it has fixed something.
    order = np.lexsort((hit & (fixed != ""), -table["score"]))
    order = order[np.where(fix, ~np.isnan(fixed_category), table["counts"])[order]]
    category = np.where(fix, fixed_category, category)[order]
    hit = (hit | fix)[order]
    categories = set(category.tolist()) | positives.keys()
    aps = [average_precision(hit[category == c], positives[c]) for c in categories]
    return float(np.mean(aps)) if aps else 0.0


def average_precision(hit: np.ndarray, positives: int) -> float:
    """Return COCO's 101-point AP.

    Args:
        hit: Whether each detection is right, by falling score.
        positives: Number of objects.
    """
    if not positives:
        return 0.0
    hits = hit.cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    at = np.searchsorted(hits / positives, np.arange(101) / 100)
    return float(envelope[at].mean())
