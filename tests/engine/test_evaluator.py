import json

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import METRICS
from mmengine.config import Config

# COCO's own twelve, by the names that CocoMetric has for them. It names average recall
# by its default numbers of detections, 100, 300 and 1000, whatever they are.
AP = ["mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"]
AR = ["AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000"]


@pytest.mark.parametrize("config", ["retinanet", "faster_rcnn"])
@pytest.mark.parametrize(
    "names, options",
    [
        (AP, {}),
        (AP + AR, dict(proposal_nums=(1, 10, 100), metric_items=AP + AR)),
    ],
    ids=["AP", "all"],
)
def test_published_metrics(project, coco_eval, capsys, config, names, options):
    cfg = Config.fromfile(project / f"configs/{config}_ghostnet_fpn.py")
    truth_file = coco_eval / "cocoapi100_gt.json"
    metric = METRICS.build(
        {**cfg.val_evaluator, **options, "ann_file": str(truth_file)}
    )
    metric.dataset_meta = CocoDataset.METAINFO

    truth = json.loads(truth_file.read_text())
    detections = json.loads((coco_eval / "cocoapi100_dt.json").read_text())
    numbers = {
        category["id"]: CocoDataset.METAINFO["classes"].index(category["name"])
        for category in truth["categories"]
    }
    for image in truth["images"]:
        found = [d for d in detections if d["image_id"] == image["id"]]
        boxes = torch.tensor([d["bbox"] for d in found], dtype=torch.float64)
        boxes = boxes.reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]  # x, y, width, height to corners
        sample = dict(
            img_id=image["id"],
            ori_shape=(image["height"], image["width"]),
            pred_instances=dict(
                bboxes=boxes,
                scores=torch.tensor([d["score"] for d in found]),
                labels=torch.tensor([numbers[d["category_id"]] for d in found]),
            ),
        )
        metric.process({}, [sample])
    metrics = metric.evaluate(size=len(truth["images"]))

    published = json.loads((coco_eval / "expected.json").read_text())["published"]
    values = [metrics[f"coco/bbox_{name}"] for name in names]
    assert np.round(values, 3).tolist() == published[: len(names)]
    assert "Average Precision  (AP) @[ IoU=0.50:0.95" in capsys.readouterr().out
