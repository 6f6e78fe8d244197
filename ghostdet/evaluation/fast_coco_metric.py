"""Compute COCO's metrics in compiled code."""

from __future__ import annotations

from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from pycocotools.cocoeval import COCOeval
from terminaltables import AsciiTable

from ghostdet.errors import UserError

AP = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
AR = ("AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000")
STATS = {name: index for index, name in enumerate(AP + AR)}  # as CocoMetric names them


@METRICS.register_module()
class FastCocoMetric(CocoMetric):
    """Compute COCO's metrics by ``faster-coco-eval``, equal to pycocotools' and faster.

    A :class:`~mmdet.evaluation.CocoMetric` with the same arguments and results, which
    keeps detections in memory instead of in files. It has no ``proposal_fast``, and
    ``use_mp_eval`` has no effect.

    In a config or on the command line, only the type changes::

        --cfg-options test_evaluator.type=FastCocoMetric

    Args:
        ann_file: Annotation file. Defaults to the annotations of the dataset.
        **kwargs: Other arguments of ``CocoMetric``.

    Raises:
        UserError: If ``faster-coco-eval`` is not installed, or ids of images are not
            integers, which it needs.
    """

    def __init__(self, ann_file: str | None = None, **kwargs: Any) -> None:
        try:
            from faster_coco_eval import COCO, COCOeval_faster
        except ModuleNotFoundError as error:
            raise UserError(
                "FastCocoMetric needs faster-coco-eval; type pip install "
                "\"ghostdet[eval]\", or evaluate with type='CocoMetric'"
            ) from error

        class Evaluation(COCOeval_faster):
            # Its own takes AP at the most detections, pycocotools' at 100.
            summarize = COCOeval.summarize

        self._coco, self._evaluation = COCO, Evaluation
        super().__init__(ann_file, **kwargs)
        if self._coco_api is not None:
            for image in self._coco_api.dataset.get("images", []):
                if not isinstance(image["id"], int):
                    raise UserError(
                        "FastCocoMetric needs integers as ids of images, and one is "
                        f"{image['id']!r}; evaluate with type='CocoMetric'"
                    )
            self._coco_api = COCO(self._coco_api.dataset)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics from processed results.

        Args:
            results: Ground truth and detections of each image.

        Returns:
            Metrics by name, such as ``bbox_mAP``; empty if nothing was detected.
        """
        if self.format_only:
            return super().compute_metrics(results)
        truth, found = zip(*results)
        if self._coco_api is None:
            with TemporaryDirectory() as folder:
                self._coco_api = self._coco(self.gt_to_coco_json(truth, f"{folder}/a"))
        names = self.dataset_meta["classes"]
        self.cat_ids = self._coco_api.get_cat_ids(cat_names=names)
        if self.img_ids is None:
            self.img_ids = self._coco_api.get_img_ids()
        if self.outfile_prefix is not None:
            self.results2json(found, self.outfile_prefix)
        metrics: dict[str, float] = {}
        logger = MMLogger.get_current_instance()
        for metric in self.metrics:
            logger.info(f"Evaluating {metric}...")
            detections = self._detections(found, masks=metric == "segm")
            if not detections:
                logger.error("There are no detections, and nothing to evaluate.")
                break
            metrics |= self._evaluate(metric, detections)
        return metrics

    def _detections(self, found: Sequence[dict], masks: bool) -> list[dict]:
        """List detections in COCO's results format."""
        detections = []
        for image in found:
            scores = image["scores"]
            if masks:  # without boxes, from which COCO would take areas
                key, values = "segmentation", image["masks"]
                scores = image.get("mask_scores", scores)
            else:
                key, values = "bbox", map(self.xyxy2xywh, image["bboxes"])
            labels = image["labels"].tolist()
            detections += [
                {
                    "image_id": image["img_id"],
                    "category_id": self.cat_ids[label],
                    "score": score,
                    key: value,
                }
                for value, score, label in zip(values, scores.tolist(), labels)
            ]
        return detections

    def _evaluate(self, metric: str, detections: list[dict]) -> dict[str, float]:
        """Compute one of ``bbox``, ``segm`` and ``proposal``."""
        proposal = metric == "proposal"
        evaluation = self._evaluation(
            self._coco_api,
            self._coco_api.loadRes(detections),
            "bbox" if proposal else metric,
        )
        params = evaluation.params
        params.catIds, params.imgIds = self.cat_ids, self.img_ids
        params.maxDets, params.iouThrs = list(self.proposal_nums), self.iou_thrs
        params.useCats = int(not proposal)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        prefix = "" if proposal else f"{metric}_"
        metrics = {
            prefix + item: round(float(evaluation.stats[STATS[item]]), 3)
            for item in self.metric_items or (AR if proposal else AP)
        }
        if self.classwise and not proposal:
            precisions, rows = evaluation.eval["precision"], [["category", "mAP"]]
            for index, category in enumerate(self._coco_api.load_cats(self.cat_ids)):
                values = precisions[:, :, index, 0, -1]
                values = values[values > -1]
                ap = round(float(np.mean(values)), 3) if values.size else float("nan")
                metrics[f"{category['name']}_precision"] = ap
                rows.append([category["name"], f"{ap:.3f}"])
            MMLogger.get_current_instance().info(f"\n{AsciiTable(rows).table}")
        return metrics
