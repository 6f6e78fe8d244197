import json
from functools import partial

import numpy as np
import pytest
import torch
from coco_dataset import samples_of
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmdet.evaluation.metrics import coco_metric
from mmdet.registry import METRICS
from mmengine.config import Config
from pycocotools.coco import COCO

from benchmarks.synthetic import synthetic_coco, synthetic_detections
from ghostdet.evaluation import FastCocoMetric

# COCO's own twelve, by the names that CocoMetric has for them. It names average recall
# by its default numbers of detections, 100, 300 and 1000, whatever they are.
AP = ["mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"]
AR = ["AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000"]


@pytest.mark.data
@pytest.mark.parametrize("kind", ["CocoMetric", "FastCocoMetric"])
@pytest.mark.parametrize(
    "names, options",
    [(AP, {}), (AP + AR, dict(proposal_nums=(1, 10, 100), metric_items=AP + AR))],
    ids=["AP", "all"],
)
def test_published_metrics(project, coco_eval, capsys, kind, names, options):
    cfg = Config.fromfile(project / "configs/retinanet_ghostnet_fpn.py")
    truth_file = coco_eval / "cocoapi100_gt.json"
    metric = METRICS.build(
        {**cfg.val_evaluator, **options, "type": kind, "ann_file": str(truth_file)}
    )
    metric.dataset_meta = CocoDataset.METAINFO

    truth = json.loads(truth_file.read_text())
    detections = json.loads((coco_eval / "cocoapi100_dt.json").read_text())
    numbers = {
        category["id"]: CocoDataset.METAINFO["classes"].index(category["name"])
        for category in truth["categories"]
    }
    metric.process({}, samples_of(truth, detections, numbers))
    metrics = metric.evaluate(size=len(truth["images"]))

    published = json.loads((coco_eval / "expected.json").read_text())["published"]
    values = [metrics[f"coco/bbox_{name}"] for name in names]
    assert np.round(values, 3).tolist() == published[: len(names)]
    assert "Average Precision  (AP) @[ IoU=0.50:0.95" in capsys.readouterr().out


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """A function: metrics, and arrays of every evaluation, by one of the classes."""

    def run(kind, coco, samples, chosen=None, **options):
        file = tmp_path / "coco.json"
        file.write_text(json.dumps(coco))
        metric = kind(ann_file=str(file), **options)
        metric.dataset_meta = dict(classes=[c["name"] for c in coco["categories"]])
        metric.img_ids = chosen
        arrays = []

        def record(evaluation):
            class Recorded(evaluation):
                def summarize(self):
                    super().summarize()
                    results = self.eval["precision"], self.eval["recall"], self.stats
                    arrays.append(results)

            return Recorded

        with monkeypatch.context() as patch:
            if kind is FastCocoMetric:
                evaluation = record(metric._classes["COCOeval"])
                patch.setitem(metric._classes, "COCOeval", evaluation)
            else:
                patch.setattr(coco_metric, "COCOeval", record(coco_metric.COCOeval))
            metric.process({}, samples)
            return metric.evaluate(len(samples)), arrays

    return run


@pytest.fixture
def check_equal(evaluate):
    """A function that expects both classes to find the same, and some metrics."""

    def check(coco, samples, **options):
        expected, reference = evaluate(CocoMetric, coco, samples, **options)
        found, arrays = evaluate(FastCocoMetric, coco, samples, **options)
        assert found == pytest.approx(expected, abs=0, nan_ok=True)
        assert len(arrays) == len(reference)
        for ours, theirs in zip(arrays, reference):
            for x, y in zip(ours, theirs):
                np.testing.assert_allclose(x, y, rtol=0, atol=1e-9)
        return found

    return check


def replace(samples, **changes):
    """The samples, with ``pred_instances`` changed by these functions of a tensor."""
    return [
        {
            **sample,
            "pred_instances": {
                **sample["pred_instances"],
                **{k: f(sample["pred_instances"][k]) for k, f in changes.items()},
            },
        }
        for sample in samples
    ]


# Images with 300 detections: by default pycocotools takes AP at 100 of them, the other
# metrics at 1000.
@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(proposal_nums=(1, 10, 100), metric_items=AP + AR),
        dict(metric=["bbox", "proposal"], iou_thrs=np.array([0.5, 0.75])),
        dict(classwise=True, use_mp_eval=False),
    ],
    ids=["default", "all", "proposal", "classwise"],
)
def test_fast_equals_pycocotools(coco, check_equal, options):
    truth = json.loads((coco / "annotations/instances_train2017.json").read_text())
    check_equal(truth, synthetic_detections(truth, per_image=300), **options)


@pytest.fixture(scope="module")
def small():
    coco = synthetic_coco(images=20, classes=3)
    return coco, synthetic_detections(coco, per_image=30)


def marked(key, coco, samples):
    for annotation in coco["annotations"][::2]:
        annotation[key] = 1
    return coco, samples


def without_objects(coco, samples):
    return {**coco, "annotations": []}, samples


def areas_at_bounds(coco, samples):
    for number, annotation in enumerate(coco["annotations"]):
        annotation["area"] = (32**2, 96**2, 32**2 - 1, 96**2 + 1)[number % 4]
    return coco, samples


def text_as_ids(coco, samples):
    """Text whose order is not that of the numbers, and an object of no image."""
    images = [{**image, "id": f"image {image['id']}"} for image in coco["images"]]
    objects = [{**a, "image_id": f"image {a['image_id']}"} for a in coco["annotations"]]
    objects.append({**objects[0], "id": 10**6, "image_id": "elsewhere"})
    samples = [{**s, "img_id": f"image {s['img_id']}"} for s in samples]
    return {**coco, "images": images, "annotations": objects}, samples


def equal_scores(coco, samples):
    return coco, replace(samples, scores=torch.ones_like)


def twice(coco, samples):
    def repeated(x):
        return torch.cat([x, x])

    return coco, replace(samples, bboxes=repeated, scores=repeated, labels=repeated)


def detections_on(count, coco, samples):
    def none(x):
        return x[:0]

    rest = replace(samples[count:], bboxes=none, scores=none, labels=none)
    return coco, samples[:count] + rest


@pytest.mark.parametrize(
    "change, metrics",
    [
        (partial(marked, "iscrowd"), 12),
        (partial(marked, "ignore"), 12),
        (without_objects, 12),
        (areas_at_bounds, 12),
        (text_as_ids, 12),
        (equal_scores, 12),
        (twice, 12),
        (partial(detections_on, 5), 12),
        (partial(detections_on, 0), 0),
    ],
)
def test_fast_equals_pycocotools_on(small, check_equal, change, metrics):
    coco, samples = change(json.loads(json.dumps(small[0])), small[1])
    assert len(check_equal(coco, samples, metric=["bbox", "proposal"])) == metrics


@pytest.mark.parametrize("image_id", [int, "image {}".format], ids=["number", "text"])
def test_a_part_of_the_images(small, evaluate, image_id):
    """``img_ids`` are those of the file, as ``ghostdet check`` sets them."""
    coco, samples = json.loads(json.dumps(small[0])), small[1][1::3]
    for item in [*coco["images"], *coco["annotations"]]:
        key = "image_id" if "image_id" in item else "id"
        item[key] = image_id(10 * item[key])
    samples = [{**s, "img_id": image_id(10 * s["img_id"])} for s in samples]
    chosen = [sample["img_id"] for sample in samples]
    ours, theirs = (
        evaluate(kind, coco, samples, chosen=chosen)[0]
        for kind in (FastCocoMetric, CocoMetric)
    )
    assert ours == pytest.approx(theirs, abs=1e-9) and ours["coco/bbox_mAP"] > 0


def test_fast_on_masks(coco, check_equal):
    file = coco / "annotations/instances_val2017.json"
    truth, coco = COCO(file), json.loads(file.read_text())
    labels = {category["id"]: i for i, category in enumerate(coco["categories"])}
    samples = samples_of(coco, coco["annotations"], labels)[:10]
    for sample in samples:
        objects, instances = truth.imgToAnns[sample["img_id"]], sample["pred_instances"]
        masks = [
            np.roll(truth.annToMask(a), 4 * (i % 3), axis=1)
            for i, a in enumerate(objects)
        ]
        masks = np.array(masks).reshape(-1, *sample["ori_shape"])
        scores = torch.arange(len(objects)) % 5 / 5
        instances.update(masks=torch.tensor(masks), scores=scores)
    metrics = check_equal(coco, samples, metric=["bbox", "segm"])
    assert metrics["coco/segm_mAP_50"] > metrics["coco/segm_mAP_75"] > 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-be"])
def test_any_encoding(own_cells, encoding):
    path = own_cells / "annotations/test.json"
    path.write_text(path.read_text().replace("WBC", "白血球"), encoding)
    for kind in (CocoMetric, FastCocoMetric):
        assert kind(str(path))._coco_api.get_cat_ids(cat_names=["白血球"]) == [2]
