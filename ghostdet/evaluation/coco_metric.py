"""Fix annotations and metrics that COCO's evaluation cannot handle, in memory."""

from __future__ import annotations

import logging

import numpy as np
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import DefaultScope

from ghostdet.errors import UserError
from ghostdet.utils.components import build_dataset, iter_datasets, type_name

_LARGEST = 2**53  # pycocotools keeps ids as float64


def coco_evaluator(cfg: Config) -> ConfigDict:
    """Return the config of the test's COCO evaluator.

    One without ``ann_file`` gets the test dataset's. MMDetection would number the
    categories by itself.

    Args:
        cfg: A detector's config, which is changed.

    Raises:
        UserError: If no evaluator is COCO's, or there is no annotation file for it.
    """
    given = cfg.test_evaluator
    evaluators = [given] if isinstance(given, dict) else given
    for own in evaluators:
        with DefaultScope.overwrite_default_scope("mmdet"):
            kind = METRICS.get(own.type) if isinstance(own.type, str) else own.type
            if kind is None or not issubclass(kind, CocoMetric):
                continue
            if own.get("ann_file") is None:
                parts = [d for _, d in iter_datasets(cfg.test_dataloader.dataset)]
                sets = [build_dataset(part) for part in parts]
                own.ann_file = getattr(sets[0], "ann_file", None)
                if len(sets) > 1 or not own.ann_file:
                    raise UserError(
                        "test_evaluator has no ann_file, and the test set has "
                        f"{len(sets)} datasets, expected one with an ann_file; give "
                        "the annotations: --cfg-options test_evaluator.ann_file=FILE"
                    )
            return own
    names = ", ".join(type_name(own.type) for own in evaluators)
    raise UserError(
        f"test_evaluator has {names}, expected a CocoMetric; add "
        "dict(type='CocoMetric', ann_file=FILE) to it"
    )


def fix_coco_metric(metric: CocoMetric) -> list[str]:
    """Fix the annotations and options of a metric.

    pycocotools marks a match by the annotation's id, so an object with the id 0 counts
    as missed (https://github.com/cocodataset/cocoapi/issues/507). Ids that are no
    integers, negative or large, and an ``iscrowd`` that is missing or null, end in an
    error or in wrong metrics. MMDetection's ``proposal_fast`` fails with NumPy 1.24 and
    newer, and ``proposal`` takes its place.

    Args:
        metric: The metric, which is changed, with a warning.

    Returns:
        What was fixed.

    Raises:
        UserError: If an ``iscrowd`` is not a number.
    """
    coco = metric._coco_api
    annotations = coco.dataset.get("annotations", []) if coco is not None else []
    notes = []
    if metric.iou_thrs is not None:  # MMDetection compares them with numbers
        metric.iou_thrs = np.atleast_1d(metric.iou_thrs)
    if "proposal_fast" in metric.metrics:
        notes.append("metric 'proposal' in place of 'proposal_fast'")
        metric.metrics = [name.removesuffix("_fast") for name in metric.metrics]
    ids = [annotation["id"] for annotation in annotations]
    odd = [i for i in ids if type(i) is not int or not 0 < i < _LARGEST]
    if odd or len(set(ids)) < len(ids):
        example = f"the id {odd[0]!r}" if odd else "an id twice"
        notes.append(f"ids are counted from 1, since there is {example}")
        for number, annotation in enumerate(annotations, start=1):
            annotation["id"] = number
    crowds = [a for a in annotations if type(a.get("iscrowd")) is not int]
    if crowds:
        example = crowds[0].get("iscrowd")
        notes.append(f"iscrowd is a number in place of {example!r} in {len(crowds):,}")
    for annotation in crowds:
        value = annotation.get("iscrowd") or 0
        try:
            annotation["iscrowd"] = int(value)
        except (TypeError, ValueError):
            raise UserError(
                f"iscrowd of an annotation is {value!r}, expected 0 or 1; correct it "
                "in the evaluator's ann_file"
            ) from None
    if notes:
        if annotations:
            coco.createIndex()
        print_log(
            f"Evaluation: {'; '.join(notes)}", logger="current", level=logging.WARNING
        )
    return notes
