"""The AP that each kind of detection error costs, by the rules of TIDE.

TIDE: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection
Errors", ECCV 2020, https://arxiv.org/abs/2008.08115. Figures equal its published
code's, tidecv 1.0.1, up to rounding.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask

FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.1
MAX_DETECTIONS = 100
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")


class Outcome(NamedTuple):
    """What became of one detection, or of one ground truth that was missed.

    Attributes:
        kind: One of ``KINDS``, or "" for a true positive.
        image: The image's id.
        category: The detection's or the missed ground truth's category.
        score: The detection's score; 0 for a missed ground truth.
        counts: Whether it is a point of the precision-recall curve; a missed ground
            truth and an error inside a crowd region are not.
        fixed_category: Category in which the detection is a true positive once its
            error is fixed; None where the fix takes it away.
    """

    kind: str
    image: int
    category: int
    score: float
    counts: bool
    fixed_category: int | None


# The outcomes as an array, where no fixed category is NaN.
TABLE = np.dtype(
    list(zip(Outcome._fields, ("U14", "O", "i8", "f8", "?", "f8"), strict=True))
)


def error_costs(ground_truth: dict, detections: list[dict]) -> dict[str, float]:
    """Say how much AP at IoU 0.5 would rise if one kind of error were fixed.

    Args:
        ground_truth: A COCO ground truth (the parsed JSON).
        detections: COCO results, each with image_id, category_id, bbox and score.

    Returns:
        The rise for each of ``KINDS``, with AP from 0 to 1.
    """
    objects = [o for o in ground_truth["annotations"] if not o.get("iscrowd")]
    positives = Counter(o["category_id"] for o in objects)
    return costs_of(np.array(classify(ground_truth, detections), TABLE), positives)


def costs_of(table: np.ndarray, positives: Counter) -> dict[str, float]:
    """Give the costs of :func:`error_costs`.

    Args:
        table: The outcomes, as a ``TABLE``.
        positives: Number of ground truths of each category.
    """
    before = mean_ap(table, positives)
    return {k: max(mean_ap(table, positives, k) - before, 0.0) for k in KINDS}


def classify(ground_truth: dict, detections: list[dict]) -> list[Outcome]:
    """Give each detection, and each missed ground truth, its kind of error.

    Args:
        ground_truth: A COCO ground truth (the parsed JSON).
        detections: COCO results, each with image_id, category_id, bbox and score.

    Returns:
        The outcomes, image by image in the ground truth's order, with the detections
        of an image by falling score. Only an image's best 100 detections count.
    """
    objects_of = by_image(ground_truth["annotations"])
    detections_of = by_image(detections)
    outcomes = []
    for image in (i["id"] for i in ground_truth["images"]):
        found = sorted(detections_of[image], key=lambda d: -d["score"])
        outcomes += _classify_image(image, objects_of[image], found[:MAX_DETECTIONS])
    return outcomes


def by_image(items: Iterable[dict]) -> dict[Any, list[dict]]:
    """Group objects or detections by image; an image without any has an empty list."""
    groups = defaultdict(list)
    for item in items:
        groups[item["image_id"]].append(item)
    return groups


def _classify_image(image: int, objects: list, found: list) -> list[Outcome]:
    crowds = [o for o in objects if o.get("iscrowd")]
    objects = [o for o in objects if not o.get("iscrowd")]
    crowd_iou, same = overlaps(found, crowds)
    in_crowd = (crowd_iou * same > FOREGROUND_IOU).any(axis=1)
    iou, same = overlaps(found, objects)
    same_iou, other_iou = iou * same, iou * ~same
    nearest, nearest_other = same_iou.argmax(axis=1), other_iou.argmax(axis=1)
    finder = match(same_iou)
    true_positives = set(finder.values())

    outcomes = []
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
        outcomes.append(Outcome(kind, image, category, score, counts, fixed))
    for j, item in enumerate(objects):
        if j not in finder and j not in fixable:
            category = item["category_id"]
            outcomes.append(Outcome("missed", image, category, 0.0, False, None))
    return outcomes


def overlaps(found: list, objects: list) -> tuple[np.ndarray, np.ndarray]:
    """Return IoU and equal category of detections x (objects and an empty column)."""
    iou = np.zeros((len(found), len(objects) + 1))
    if found and objects:
        boxes = [np.array([x["bbox"] for x in xs], float) for xs in (found, objects)]
        iou[:, :-1] = mask.iou(*boxes, [o.get("iscrowd", 0) for o in objects])
    theirs = np.array([d["category_id"] for d in found])
    return iou, theirs[:, None] == [*(o["category_id"] for o in objects), np.nan]


def match(iou: np.ndarray) -> dict[int, int]:
    """Find the detection that finds each object, the best score choosing first.

    Args:
        iou: ``(D, T)``, detections by falling score x objects.

    Returns:
        Number of the detection by that of its object.
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
        table: The outcomes, as a ``TABLE``.
        positives: Number of ground truths of each category.
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
