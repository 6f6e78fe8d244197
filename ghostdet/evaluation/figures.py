"""Figures about the errors of a detector."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np

from ghostdet.evaluation.errors import (
    FOREGROUND_IOU,
    average_precision,
    by_image,
    classify,
    costs_of,
    overlaps,
)

AREAS = ("AP", "AP_small", "AP_medium", "AP_large")
# Detections of an image that count: CocoMetric takes AP at 100, its other metrics at
# 1,000.
MOST = (100, 1000)
BINS = 10  # intervals of scores
EXAMPLES = 12  # objects shown for a cell of the confusion matrix
IMAGES = 24  # images shown, with the most lost AP
_CANDIDATES = 200  # images with the most errors, whose lost AP is computed


def detection_figures(truth: dict, detections: Sequence[dict]) -> dict[str, Any]:
    """Compute figures from a ground truth and detections.

    Args:
        truth: COCO annotations.
        detections: COCO results, each with ``image_id``, ``category_id``, ``bbox``,
            ``[x, y, width, height]`` in px, and ``score``.

    Returns:
        ``classes``: of each, objects, detections, COCO's AP, AP50 and AP by size, the
        ``threshold`` of the score with the highest F1 at IoU 0.5, with its precision
        and recall, and ``curve``, the precision at IoU 0.5 by recall from 0 to 1, None
        without objects.
        ``errors``: AP50 that each kind of error costs, by TIDE's rules.
        ``confusion``: counts of objects (rows) by detections (columns) above the
        thresholds, the last of each for background, and ``examples`` of each cell.
        ``calibration``: the share of right detections by their score.
        ``images``: those with the most lost AP50. All AP are from 0 to 1, or None
        without objects.
    """
    listed = {image["id"] for image in truth["images"]}
    annotations = [
        {"iscrowd": 0, **a, "id": i}
        for i, a in enumerate(truth["annotations"], 1)
        if a["image_id"] in listed
    ]
    truth = {**truth, "annotations": annotations}
    table = classify(truth, detections, MOST[-1])
    names = {c["id"]: c["name"] for c in truth["categories"]}
    found = Counter(d["category_id"] for d in detections)
    objects = Counter(a["category_id"] for a in annotations if not a["iscrowd"])
    classes = []
    precision = _precision(truth, detections, list(names))
    for k, (number, name) in enumerate(names.items()):
        row = dict(id=number, name=name, objects=objects[number])
        row.update(detections=found[number])
        for area, key in enumerate(AREAS):
            most = 100 if key == "AP" else 1000
            row[key] = _mean(precision[most][:, :, k, area])
        at_50 = precision[1000][0, :, k, 0]
        row["AP50"] = _mean(at_50)
        row |= best_threshold(table[table["category"] == number], objects[number])
        curve = at_50.round(4).tolist()
        row["curve"] = curve if objects[number] else None
        classes.append(row)
    thresholds = {row["id"]: row["threshold"] for row in classes}
    matrix, examples = confusion(truth, detections, thresholds)
    mean = {key: _over([row[key] for row in classes]) for key in (*AREAS, "AP50")}
    files = {image["id"]: image["file_name"] for image in truth["images"]}
    worst = lost_ap(table, objects)
    images = sorted(worst, key=worst.get, reverse=True)[:IMAGES]
    return dict(
        images_evaluated=len(files),
        mean=mean,
        classes=classes,
        errors=costs_of(table, objects),
        confusion=dict(matrix=matrix.tolist(), examples=examples),
        calibration=calibration(table),
        images=[dict(id=i, file_name=files[i], lost=worst[i]) for i in images],
    )


def _precision(
    truth: dict, detections: Sequence[dict], ids: list
) -> dict[int, np.ndarray]:
    """Compute COCO's precision by IoU, recall, class and area, for each of MOST."""
    from faster_coco_eval import COCOeval_faster

    from ghostdet.evaluation.numbered_coco import NumberedCOCO

    with redirect_stdout(StringIO()):
        coco = NumberedCOCO(truth)
        found = coco.loadRes(detections)
        evaluation = COCOeval_faster(coco, found, "bbox")
        evaluation.params.catIds = ids
        evaluation.params.maxDets = [1, *MOST]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    return {most: precision[..., i] for i, most in enumerate(MOST, 1)}


def _mean(values: np.ndarray) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def _over(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def best_threshold(rows: np.ndarray, objects: int) -> dict[str, float | None]:
    """Find the score with the highest F1 of a class at IoU 0.5.

    Args:
        rows: Its part of the table of :func:`~ghostdet.evaluation.errors.classify`.
        objects: Number of its objects.
    """
    rows = rows[rows["counts"]]
    rows = rows[np.argsort(-rows["score"], kind="stable")]
    hits = (rows["kind"] == "").cumsum()
    last = np.append(rows["score"][1:] != rows["score"][:-1], True)  # among equals
    if not objects or not hits.size or not hits[-1]:
        return dict(threshold=None, F1=None, precision=None, recall=None)
    count = np.arange(1, len(rows) + 1)
    f1 = np.where(last[: len(rows)], 2 * hits / (count + objects), 0)
    best = int(f1.argmax())
    precision, recall = hits[best] / count[best], hits[best] / objects
    found = dict(threshold=rows["score"][best], F1=f1[best])
    found |= dict(precision=precision, recall=recall)
    return {key: float(value) for key, value in found.items()}


def above(
    detections: Iterable[dict], thresholds: dict[int, float | None]
) -> list[dict]:
    """List the detections that reach the threshold of their class.

    Args:
        detections: COCO results.
        thresholds: The lowest score by id of the class; None, or no entry, for none.
    """
    return [
        d
        for d in detections
        if (least := thresholds.get(d["category_id"])) is not None
        and d["score"] >= least
    ]


def confusion(
    truth: dict, detections: Sequence[dict], thresholds: dict[int, float | None]
) -> tuple[np.ndarray, dict[str, list]]:
    """Count objects by the class that they were detected as.

    Pairs of an object and a detection with an IoU of 0.5 or more are taken by equal
    class first, then by IoU, each object and detection once. Crowds are no objects, and
    a detection in one, of its class, is left out.

    Args:
        truth: COCO annotations with ``iscrowd``.
        detections: COCO results.
        thresholds: See :func:`above`.

    Returns:
        ``(K + 1, K + 1)`` counts in the order of the categories, background last, and
        boxes by ``'row,column'``: ``[image id, x, y, width, height]``.
    """
    index = {c["id"]: i for i, c in enumerate(truth["categories"])}
    matrix = np.zeros((len(index) + 1, len(index) + 1), int)
    examples: dict[str, list] = defaultdict(list)
    objects_of = by_image(truth["annotations"])
    found_of = by_image(above(detections, thresholds))
    background = len(index)

    def count(image: Any, item: dict, row: int, column: int) -> None:
        matrix[row, column] += 1
        cell = examples[f"{row},{column}"]
        if len(cell) < EXAMPLES:
            cell.append([image, *item["bbox"]])

    for image in (image["id"] for image in truth["images"]):
        objects = [a for a in objects_of[image] if not a["iscrowd"]]
        crowds = [a for a in objects_of[image] if a["iscrowd"]]
        found = found_of[image]
        iou, same = overlaps(found, objects)
        pairs = np.argwhere(iou >= FOREGROUND_IOU)
        order = sorted(map(tuple, pairs), key=lambda p: (not same[p], -iou[p]))
        taken: dict[int, int] = {}
        for i, j in order:
            if i not in taken and j not in taken.values():
                taken[i] = j
        crowd_iou, same = overlaps(found, crowds)
        inside = crowd_iou * same > FOREGROUND_IOU
        for i, detection in enumerate(found):
            column = index[detection["category_id"]]
            if i in taken:
                other = objects[taken[i]]
                count(image, other, index[other["category_id"]], column)
            elif not inside[i].any():
                count(image, detection, background, column)
        for j, item in enumerate(objects):
            if j not in taken.values():
                count(image, item, index[item["category_id"]], background)
    return matrix, dict(examples)


def calibration(table: np.ndarray) -> list[dict[str, float]]:
    """Give the share of right detections, and their mean score, by score."""
    rows = table[table["counts"]]
    place = np.minimum((rows["score"] * BINS).astype(int), BINS - 1)
    found = []
    for number in range(BINS):
        own = rows[place == number]
        if len(own):
            right = float((own["kind"] == "").mean())
            score = float(own["score"].mean())
            found.append(dict(score=score, right=right, detections=len(own)))
    return found


def lost_ap(table: np.ndarray, objects: Counter) -> dict[Any, float]:
    """Compute by how much AP50 would rise without the errors of each image.

    Its wrong detections are left out, and its missed objects do not count.

    Args:
        table: Result of :func:`~ghostdet.evaluation.errors.classify`.
        objects: Number of objects by class.

    Returns:
        The rise by image id, for the images with the most errors.
    """
    wrong = table[table["kind"] != ""]
    chosen = [i for i, _ in Counter(wrong["image"].tolist()).most_common(_CANDIDATES)]
    rises: dict[Any, float] = defaultdict(float)
    for number, count in objects.items():
        rows = table[table["category"] == number]
        missed = Counter(rows["image"][rows["kind"] == "missed"].tolist())
        rows = rows[rows["counts"]]
        rows = rows[np.argsort(-rows["score"], kind="stable")]
        hits, images = rows["kind"] == "", rows["image"]
        before = average_precision(hits, count)
        of_wrong = set(images[~hits].tolist())
        for image in chosen:
            if image in of_wrong or missed[image]:
                kept = hits | (images != image)
                after = average_precision(hits[kept], count - missed[image])
                rises[image] += (after - before) / len(objects)
    return dict(rises)
