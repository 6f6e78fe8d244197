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
from ghostdet.evaluation.coco_metric import fix_coco_metric
from ghostdet.evaluation.fast_coco_metric import FastCocoMetric

QUICK = 200  # images
_MOST = 100  # detections of a class in an image, of COCO's AP


def evaluate_truth(
    dataset: Any, evaluator: Evaluator, quick: bool, key: str
) -> Finding:
    """Evaluate the ground truth of a dataset as if it were detections, by COCO's AP.

    Args:
        dataset: The dataset of an evaluation.
        evaluator: Its evaluator.
        quick: Evaluate at most :data:`QUICK` images.
        key: The evaluator's place in the config.
    """
    coco = [metric for metric in evaluator.metrics if isinstance(metric, CocoMetric)]
    notes = [note for metric in coco for note in fix_coco_metric(metric)]
    known = [m for m in coco if type(m) in (CocoMetric, FastCocoMetric)]
    tried = [m for m in known if "bbox" in m.metrics and not m.format_only]
    if not tried or type(evaluator) is not Evaluator:
        names = ", ".join(type(metric).__name__ for metric in evaluator.metrics)
        text = f"{names}: not tried with the ground truth"
        return Finding("evaluator", "pass", text)
    count = min(len(dataset), QUICK) if quick else len(dataset)
    chosen = np.linspace(0, len(dataset) - 1, count).astype(int).tolist()
    samples = [_sample(dataset, index) for index in chosen]
    if not any(len(sample["pred_instances"]["labels"]) for sample in samples):
        text = f"none of {count:,} images has an object, so there is no AP"
        remedy = "Give a file with annotated objects"
        return Finding("evaluator", "pass" if quick else "warn", text, remedy)
    values = {}
    for metric in tried:
        kept = vars(metric).copy()
        metric.metrics, metric.classwise, metric.outfile_prefix = ["bbox"], False, None
        metric.metric_items = metric.metric_items and ["mAP", *metric.metric_items]
        if metric._coco_api is not None:
            metric.img_ids = [sample["img_id"] for sample in samples]
        metric.process(None, samples)
        found = metric.evaluate(count)
        vars(metric).update(kept)
        values |= {name: v for name, v in found.items() if name.endswith("mAP")}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    shown = f"the ground truth of {count:,} images gets {shown}"
    source, api = getattr(dataset, "ann_file", "the dataset's"), tried[0]._coco_api
    beyond = 0 if api is None else len(api.getImgIds()) - len(dataset)
    if beyond > 0:
        text = f"{beyond:,} more images in {key}.ann_file are not in the dataset"
        notes.append(f"{text}, and their objects count as missed")
    remedy = "Correct the annotation file, or let the dataset have all its images"
    low = any(value <= 0.5 for value in values.values())
    if any(value != 1 for value in values.values()):
        remedy = f"Let {key}.ann_file be {source}, and correct what its checks say"
        if min(values.values()) < 0:  # no detection counted
            remedy = f"Leave out {key}.proposal_nums, or give 100 as one of three"
        elif crowded := _crowded(api):
            low, remedy = False, ""
            text = f"AP counts {_MOST} detections of a class in an image, and "
            notes.append(f"{text}{crowded:,} images have more objects")
    elif not notes:
        return Finding("evaluator", "pass", shown)
    text = "; ".join([shown, *notes])
    return Finding("evaluator", "fail" if low else "warn", text, remedy)


def _sample(dataset: Any, index: int) -> dict:
    """Give an image's ground truth as a prediction."""
    info = dataset.get_data_info(index)
    objects = [i for i in info.get("instances", []) if not i.get("ignore_flag")]
    boxes = torch.tensor([i["bbox"] for i in objects], dtype=torch.float64)
    sample = DetDataSample(
        metainfo=dict(
            img_id=info.get("img_id", index),
            ori_shape=(info.get("height"), info.get("width")),
            instances=info.get("instances", []),
        )
    )
    sample.pred_instances = InstanceData(
        bboxes=boxes.reshape(-1, 4),
        scores=torch.ones(len(objects)),
        labels=torch.tensor([i["bbox_label"] for i in objects], dtype=torch.long),
    )
    return sample.to_dict()


def _crowded(coco: Any) -> int:
    """Count images with more objects of a class than AP counts."""
    counts = Counter(
        (annotation["image_id"], annotation["category_id"])
        for annotation in (coco.anns.values() if coco else ())
        if not annotation.get("iscrowd")
    )
    return len({image for (image, _), count in counts.items() if count > _MOST})
