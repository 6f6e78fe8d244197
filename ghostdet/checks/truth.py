"""The metrics that a dataset's own ground truth gets from an evaluator."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from mmdet.evaluation import CocoMetric
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from ghostdet.checks.findings import Finding
from ghostdet.evaluation.accuracy import Accuracy
from ghostdet.evaluation.coco_metric import fix_coco_metric

QUICK = 200  # images
_MOST = 100  # detections in an image, of COCO's AP


def evaluate_truth(
    dataset: Any, evaluator: Evaluator, quick: bool, key: str
) -> Finding:
    """Evaluate the ground truth of a dataset as if it were detections.

    Args:
        dataset: The dataset of an evaluation.
        evaluator: Its evaluator, with COCO's metrics of boxes or ``Accuracy``.
        quick: Evaluate at most :data:`QUICK` images.
        key: The evaluator's place in the config.

    Returns:
        A finding, which passes if each metric has its highest value.
    """
    notes = []
    for metric in evaluator.metrics:
        if isinstance(metric, CocoMetric):
            notes += fix_coco_metric(metric)
    metrics = [
        metric
        for metric in evaluator.metrics
        if isinstance(metric, Accuracy)
        or (
            isinstance(metric, CocoMetric)
            and "bbox" in metric.metrics
            and not metric.format_only
        )
    ]
    names = ", ".join(type(metric).__name__ for metric in evaluator.metrics)
    if not metrics:
        text = f"{names}: not tried with the ground truth"
        return Finding("evaluator", "pass", text)
    count = min(len(dataset), QUICK) if quick else len(dataset)
    chosen = np.linspace(0, len(dataset) - 1, count).astype(int).tolist()
    samples = [_sample(dataset, index) for index in chosen]
    values = {}
    for metric in metrics:
        kept = vars(metric).copy()
        if isinstance(metric, CocoMetric):
            metric.metrics, metric.metric_items, metric.classwise = ["bbox"], None, 0
            metric.outfile_prefix = None
            if metric._coco_api is not None:
                metric.img_ids = [sample["img_id"] for sample in samples]
        metric.process(None, samples)
        found = metric.evaluate(count)
        vars(metric).update(kept)
        wanted = 1 if isinstance(metric, CocoMetric) else 100
        values |= {
            name: (value, wanted)
            for name, value in found.items()
            if name.endswith("mAP") or "top" in name
        }
    shown = ", ".join(f"{name} {value:.3f}" for name, (value, _) in values.items())
    shown = f"the ground truth of {count:,} images gets {shown or 'no metric'}"
    perfect = values and all(value == wanted for value, wanted in values.values())
    reasons = notes + _reasons(dataset, metrics[0], samples)
    if perfect and not reasons:
        return Finding("evaluator", "pass", shown)
    useless = any(0 <= value <= wanted / 2 for value, wanted in values.values())
    return Finding(
        "evaluator",
        "fail" if useless else "warn",
        "; ".join([shown, *reasons]),
        "Correct the annotation file, or let the dataset have all of its images"
        if perfect
        else f"Let {key}.ann_file be the file of the dataset that is evaluated, and "
        "correct what the dataset's checks name",
    )


def _sample(dataset: Any, index: int) -> dict:
    """Give an image's ground truth as a prediction."""
    if hasattr(dataset, "targets"):
        scores = torch.zeros(len(dataset.classes))
        scores[dataset.targets[index]] = 1
        return dict(pred_score=scores, gt_label=int(dataset.targets[index]))
    info = dataset.get_data_info(index)
    objects = [i for i in info.get("instances", []) if not i.get("ignore_flag")]
    boxes = torch.tensor([i["bbox"] for i in objects], dtype=torch.float64)
    prediction = InstanceData(
        bboxes=boxes.reshape(-1, 4),
        scores=torch.ones(len(objects)),
        labels=torch.tensor([i["bbox_label"] for i in objects], dtype=torch.long),
    )
    sample = DetDataSample(
        metainfo=dict(
            img_id=info.get("img_id", index),
            ori_shape=(info.get("height"), info.get("width")),
            instances=info.get("instances", []),
        )
    )
    sample.pred_instances = prediction
    return sample.to_dict()


def _reasons(dataset: Any, metric: Any, samples: list[dict]) -> list[str]:
    """Say why metrics will not reach their highest values, as far as it is known."""
    coco = getattr(metric, "_coco_api", None)
    if coco is None:
        return []
    reasons, own = [], {sample["img_id"] for sample in samples}
    beyond = len(coco.getImgIds()) - len(dataset)
    if beyond > 0:
        reasons.append(
            f"{beyond:,} more images in its ann_file are none of the dataset's, and "
            "their objects will count as missed"
        )
    counts = Counter(annotation["image_id"] for annotation in coco.anns.values())
    if crowded := sum(counts[image] > _MOST for image in own):
        reasons.append(f"COCO's AP takes {_MOST} detections, and {crowded:,} have more")
    return reasons
