"""Perfect detections have an AP of 1, whatever the ids in the file."""

import json

import pytest
from coco_dataset import CELLS, samples_of
from mmdet.registry import METRICS

from ghostdet.errors import UserError
from ghostdet.evaluation.coco_metric import fix_coco_metric


def perfect(kind, path, classes, metric="bbox"):
    """Metrics of the objects in a file, given as detections."""
    metric = METRICS.build(dict(type=kind, ann_file=str(path), metric=metric))
    fix_coco_metric(metric)
    metric.dataset_meta = dict(classes=classes)
    coco = json.loads(path.read_text())
    labels = {category["id"]: i for i, category in enumerate(coco["categories"])}
    found = [a for a in coco["annotations"] if not int(a.get("iscrowd") or 0)]
    metric.process({}, samples_of(coco, found, labels))
    return metric.evaluate(size=len(coco["images"]))


@pytest.mark.parametrize("kind", ["CocoMetric", "FastCocoMetric"])
@pytest.mark.parametrize(
    "change",
    [
        lambda number, a: a.update(id=number),  # from 0
        lambda number, a: a.update(id=str(number)),
        lambda number, a: a.update(id=number + 0.5),
        lambda number, a: a.update(id=-number),
        lambda number, a: a.update(id=2**63 + number),
        lambda number, a: a.update(id=1),
        lambda number, a: a.pop("iscrowd"),
        lambda number, a: a.update(iscrowd=a["iscrowd"] or None),
        lambda number, a: a.update(iscrowd=str(a["iscrowd"])),
    ],
    ids=["0", "text", "float", "-", "large", "equal", "no crowd", "null", "text crowd"],
)
def test_ids(kind, own_cells, change):
    path = own_cells / "annotations/test.json"
    coco = json.loads(path.read_text())
    for number, annotation in enumerate(coco["annotations"]):
        change(number, annotation)
    path.write_text(json.dumps(coco))
    classes = [category["name"] for category in coco["categories"]]
    assert perfect(kind, path, classes)["coco/bbox_mAP"] == 1


def test_iscrowd_that_is_no_number(own_cells):
    path = own_cells / "annotations/test.json"
    coco = json.loads(path.read_text())
    coco["annotations"][0]["iscrowd"] = "no"
    path.write_text(json.dumps(coco))
    with pytest.raises(UserError, match="iscrowd of an annotation is 'no', expected"):
        perfect("CocoMetric", path, [])


def test_proposal_fast(cells):
    metrics = perfect(
        "CocoMetric", cells / "annotations/test.json", CELLS, "proposal_fast"
    )
    assert metrics["coco/AR@100"] == 1
