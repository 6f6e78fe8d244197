"""Evaluate a dataset's own ground truth."""

from __future__ import annotations

import os
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from mmdet.evaluation import CocoMetric
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop, TestLoop, ValLoop
from mmengine.structures import InstanceData
from pycocotools.coco import COCO

from ghostdet.checks.findings import Finding
from ghostdet.errors import UserError
from ghostdet.evaluation.coco_metric import fix_coco_metric
from ghostdet.evaluation.fast_coco_metric import FastCocoMetric
from ghostdet.utils.files import check_writable

QUICK = 200  # images
_MOST = 100  # detections of a class in an image that COCO's AP counts


def evaluate_truth(
    loop: BaseLoop, quick: bool, key: str
) -> tuple[Finding, dict[str, float]]:
    """Evaluate the ground truth of a dataset as if it were detections, by COCO's AP.

    Args:
        loop: The evaluation.
        quick: Evaluate at most :data:`QUICK` images.
        key: The evaluator's place in the config.

    Returns:
        The finding, and COCO's metrics by name.
    """
    if not isinstance(loop, (ValLoop, TestLoop)):
        text = f"not tried with the truth: {type(loop).__name__}"
        return Finding("evaluator", "pass", text), {}
    dataset, evaluator = loop.dataloader.dataset, loop.evaluator
    coco = [metric for metric in evaluator.metrics if isinstance(metric, CocoMetric)]
    notes = [note for metric in coco for note in fix_coco_metric(metric)]
    known = [m for m in coco if type(m) in (CocoMetric, FastCocoMetric)]
    tried = [metric for metric in known if not metric.format_only]
    if not tried or type(evaluator) is not Evaluator:
        names = ", ".join(type(metric).__name__ for metric in evaluator.metrics)
        return Finding("evaluator", "pass", f"not tried with the truth: {names}"), {}
    batches, most = loop.dataloader.batch_sampler, 2 * len(dataset)
    used = list(islice(chain.from_iterable(batches), most))
    if sorted(used) != list(range(len(dataset))):
        text = f"the data loader gives {len({*used}):,} of {len(dataset):,} images"
        text += ", without an end" * (len(used) == most)
        raise UserError(f"{text}; use DefaultSampler without drop_last")
    count = min(len(dataset), QUICK) if quick else len(dataset)
    chosen = np.linspace(0, len(dataset) - 1, count).astype(int).tolist()
    masks = any("segm" in metric.metrics for metric in tried)
    samples = [_sample(dataset, index, masks) for index in chosen]
    if not any(len(sample["pred_instances"]["labels"]) for sample in samples):
        text = f"none of {count:,} images has an object, so there is no AP"
        return Finding("evaluator", "pass" if quick else "warn", text), {}
    values, metrics = {}, {}
    for metric in tried:
        kept, items = vars(metric).copy(), metric.metric_items or ["mAP"]
        if metric.outfile_prefix:
            check_writable(os.path.dirname(metric.outfile_prefix) or ".")
        metric.outfile_prefix = None
        metric.metric_items = metric.metric_items and ["mAP", *items]
        if metric._coco_api is not None:
            metric.img_ids = [sample["img_id"] for sample in samples]
        metric.process(None, samples)
        found = metric.evaluate(count)
        vars(metric).update(kept)
        if not found:
            raise UserError(f"{key} computes no metric; give metric='bbox'")
        values |= {n: v for n, v in found.items() if n.endswith(("mAP", "AR@1000"))}
        if twice := found.keys() & metrics.keys():
            raise UserError(f"two metrics give {min(twice)}; give each its own prefix")
        metrics |= {n: v for n, v in found.items() if "mAP" in items or n[-3:] != "mAP"}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    shown = f"the ground truth of {count:,} images gets {shown}"
    source, api = getattr(dataset, "ann_file", "the dataset's"), tried[0]._coco_api
    beyond = 0 if api is None else len(api.getImgIds()) - len(dataset)
    if beyond > 0:
        text = f"{beyond:,} more images in {key}.ann_file are not in the dataset"
        notes.append(f"{text}, and their objects count as missed")
    counts = [np.bincount(sample["pred_instances"]["labels"]) for sample in samples]
    status, remedy = "warn" if beyond > 0 else "pass", ""
    if any(value != 1 for value in values.values()):
        status = "fail" if min(values.values()) <= 0.5 else "warn"
        remedy = f"Let {key}.ann_file be {source}, and correct what its checks say"
        if min(values.values()) < 0 and 100 not in tried[0].proposal_nums:
            remedy = f"Leave out {key}.proposal_nums, or give 100 as one of three"
        elif crowded := sum(len(b) and b.max() > _MOST for b in counts):
            status, remedy = "warn", ""
            text = f"AP counts {_MOST} detections of a class in an image, and "
            notes.append(f"{text}{crowded:,} images have more objects")
    return Finding("evaluator", status, "; ".join([shown, *notes]), remedy), metrics


def _sample(dataset: Any, index: int, masks: bool) -> dict:
    """Give an image's ground truth as a prediction."""
    info = dataset.get_data_info(index)
    objects = [i for i in info.get("instances", []) if not i.get("ignore_flag")]
    boxes = torch.tensor([i["bbox"] for i in objects], dtype=torch.float64)
    shape, own = (info.get("height"), info.get("width")), info.get("instances", [])
    image = dict(img_id=info.get("img_id", index), ori_shape=shape, instances=own)
    sample = DetDataSample(metainfo=image)
    sample.pred_instances = InstanceData(
        bboxes=boxes.reshape(-1, 4),
        scores=torch.ones(len(objects)),
        labels=torch.tensor([i["bbox_label"] for i in objects], dtype=torch.long),
    )
    if masks:
        coco = COCO()  # turns polygons into masks
        coco.imgs[0] = info
        masks = [dict(image_id=0, segmentation=i["mask"]) for i in objects]
        sample.pred_instances.masks = list(map(coco.annToRLE, masks))
    return sample.to_dict()
