"""Figures of what a detector gets wrong, against brute force and tidecv."""

import json
from collections import Counter

import numpy as np
import pytest
from mmdet.evaluation import CocoMetric
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.synthetic import synthetic_coco, synthetic_detections
from ghostdet.evaluation.errors import KINDS, classify, costs_of
from ghostdet.evaluation.figures import (
    best_threshold,
    confusion,
    detection_figures,
    lost_ap,
)


def random_case(seed, images=6, classes=3, crowd=0.1):
    """Ground truth, and detections: moved, doubled, of other classes, anywhere."""
    rng = np.random.default_rng(seed)
    annotations, found = [], []

    def box():
        size = rng.uniform(20, 90, 2)
        return [*rng.uniform(0, 200 - size), *size]

    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 7)):
            own, category = box(), int(rng.integers(1, classes + 1))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image,
                    category_id=category,
                    bbox=own,
                    area=own[2] * own[3],
                    iscrowd=int(rng.random() < crowd),
                )
            )
            for _ in range(rng.integers(0, 3)):
                moved = np.array(own) + rng.normal(0, rng.choice([1, 9, 25]), 4)
                other = int(rng.integers(1, classes + 1))
                kind = other if rng.random() < 0.3 else category
                moved = [*moved[:2], *moved[2:].clip(5)]
                found.append((image, kind, moved, round(rng.random(), 1 + seed % 3)))
        for _ in range(rng.integers(0, 3)):
            found.append(
                (image, int(rng.integers(1, classes + 1)), box(), rng.random())
            )
    keys = "image_id", "category_id", "bbox", "score"
    detections = [dict(zip(keys, (*row[:3], float(row[3])))) for row in found]
    truth = dict(
        images=[
            dict(id=i, file_name=f"{i}.jpg", width=200, height=200)
            for i in range(1, images + 1)
        ],
        annotations=annotations,
        categories=[dict(id=c, name=f"class {c}") for c in range(1, classes + 1)],
    )
    return truth, detections


def iou(a, b, crowd=False):
    x1, y1 = max(a[0], b[0]), max(a[1], b[1])
    x2, y2 = min(a[0] + a[2], b[0] + b[2]), min(a[1] + a[3], b[1] + b[3])
    both = max(x2 - x1, 0) * max(y2 - y1, 0)
    return both / (a[2] * a[3] + (0 if crowd else b[2] * b[3] - both))


# Computed by tidecv 1.0.1 for random_case(seed): AP50 of each kind of KINDS.
TIDECV = {
    0: [0.0, 0.374639844937, 0.005280528053, 0.008297972654, 0.005657708628,
        0.102860286029],
    1: [0.033828382838, 0.123762376238, 0.051914715281, 0.028749541621,
        0.013476347635, 0.13201320132],
    2: [0.0, 0.327282728273, 0.0, 0.0, 0.037403740374, 0.101210121012],
    3: [0.0, 0.436979412227, 0.00902090209, 0.0, 0.00902090209, 0.011551155116],
    4: [0.051265126513, 0.229679396511, 0.0, 0.0, 0.095379537954, 0.087788778878],
}  # fmt: skip


@pytest.mark.parametrize("image_id", [int, "image {}".format], ids=["number", "text"])
@pytest.mark.parametrize("seed", range(5))
def test_ap_of_classes(seed, image_id):
    truth, detections = random_case(seed)
    renamed = {
        "images": [{**i, "id": image_id(i["id"])} for i in truth["images"]],
        "annotations": [
            {**a, "image_id": image_id(a["image_id"])} for a in truth["annotations"]
        ],
        "categories": truth["categories"],
    }
    figures = detection_figures(
        renamed, [{**d, "image_id": image_id(d["image_id"])} for d in detections]
    )
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(detections), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    for k, row in enumerate(figures["classes"]):
        for area, key in enumerate(("AP", "AP_small", "AP_medium", "AP_large")):
            values = evaluation.eval["precision"][:, :, k, area, -1]
            values = values[values > -1]
            expected = values.mean() if values.size else None
            assert row[key] == (expected and pytest.approx(expected, abs=1e-9))
        curve = evaluation.eval["precision"][0, :, k, 0, -1].round(4).tolist()
        assert row["curve"] == (curve if row["objects"] else None)
    evaluation.summarize()
    assert figures["mean"]["AP"] == pytest.approx(evaluation.stats[0], abs=1e-9)
    assert figures["mean"]["AP50"] == pytest.approx(evaluation.stats[1], abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_confusion(seed):
    truth, detections = random_case(seed)
    thresholds = {1: 0.3, 2: 0.0, 3: None}
    matrix, examples = confusion(truth, detections, thresholds)
    expected = np.zeros((4, 4), int)
    for image in truth["images"]:
        own = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        objects = [a for a in own if not a["iscrowd"]]
        found = [
            d
            for d in detections
            if d["image_id"] == image["id"]
            and thresholds[d["category_id"]] is not None
            and d["score"] >= thresholds[d["category_id"]]
        ]
        left, free = [*found], [*objects]
        while pairs := [
            (d["category_id"] == o["category_id"], iou(d["bbox"], o["bbox"]), i, j)
            for i, d in enumerate(left)
            for j, o in enumerate(free)
            if iou(d["bbox"], o["bbox"]) >= 0.5
        ]:
            _, _, i, j = max(pairs)
            expected[
                free.pop(j)["category_id"] - 1, left.pop(i)["category_id"] - 1
            ] += 1
        for o in free:
            expected[o["category_id"] - 1, 3] += 1
        for d in left:
            crowds = [a for a in own if a["iscrowd"]]
            expected[3, d["category_id"] - 1] += not any(
                c["category_id"] == d["category_id"]
                and iou(d["bbox"], c["bbox"], True) > 0.5
                for c in crowds
            )
    assert (matrix == expected).all()
    counts = {key: min(matrix[tuple(map(int, key.split(",")))], 12) for key in examples}
    assert {key: len(boxes) for key, boxes in examples.items()} == counts
    assert len(examples) == (matrix > 0).sum()


@pytest.mark.parametrize("seed", range(10))
def test_best_threshold(seed):
    truth, detections = random_case(seed, crowd=0)
    table = classify(truth, detections)
    objects = Counter(a["category_id"] for a in truth["annotations"])
    for number in (1, 2, 3):
        rows = table[(table["category"] == number) & table["counts"]]
        found = best_threshold(table[table["category"] == number], objects[number])

        def f1(least, rows=rows, number=number):
            kept = rows[rows["score"] >= least]
            right = (kept["kind"] == "").sum()
            return 2 * right / (len(kept) + objects[number])

        best = max(map(f1, rows["score"]), default=0)
        if not best:
            assert found["threshold"] is None
        else:
            assert found["F1"] == pytest.approx(best)
            assert f1(found["threshold"]) == pytest.approx(best)


@pytest.mark.parametrize("seed", TIDECV)
def test_errors_as_tidecv(seed):
    truth, detections = random_case(seed)
    objects = [a["category_id"] for a in truth["annotations"] if not a["iscrowd"]]
    costs = costs_of(classify(truth, detections), Counter(objects))
    assert [*costs.values()] == pytest.approx(TIDECV[seed], abs=1e-9)
    assert tuple(costs) == KINDS


@pytest.mark.parametrize("seed", range(5))
def test_images_with_lost_ap(seed):
    """The rise equals the AP50 of a table without the image's errors."""
    truth, detections = random_case(seed, crowd=0)
    table = classify(truth, detections)
    objects = Counter(a["category_id"] for a in truth["annotations"])

    def ap50(table, objects):
        values = []
        for number in (n for n in (1, 2, 3) if objects[n]):
            rows = table[(table["category"] == number) & table["counts"]]
            rows = rows[np.argsort(-rows["score"], kind="stable")]
            right = np.cumsum(rows["kind"] == "")
            precision = right / np.arange(1, len(rows) + 1)
            recall = right / objects[number]
            steps = [precision[recall >= i / 100] for i in range(101)]
            values.append(np.mean([step.max() if len(step) else 0 for step in steps]))
        return np.sum(values) / 3

    for image, rise in lost_ap(
        table, Counter({n: objects[n] for n in (1, 2, 3)})
    ).items():
        own = (table["image"] == image) & (table["kind"] != "")
        missed = Counter(table["category"][own & (table["kind"] == "missed")].tolist())
        left = Counter({n: objects[n] - missed[n] for n in objects})
        if all(left.values()):
            expected = ap50(table[~own], left) - ap50(table, objects)
            assert rise == pytest.approx(expected)


def test_same_as_the_metric(tmp_path):
    """AP at 100 detections of an image and AP50 at 1,000, as CocoMetric has them."""
    coco = synthetic_coco(images=8, classes=1)
    samples = synthetic_detections(coco, per_image=300)
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    metric = CocoMetric(
        ann_file=str(tmp_path / "coco.json"), outfile_prefix=str(tmp_path / "found")
    )
    metric.dataset_meta = dict(classes=[c["name"] for c in coco["categories"]])
    metric.process({}, samples)
    metrics = metric.evaluate(len(samples))
    detections = json.loads((tmp_path / "found.bbox.json").read_text())
    mean = detection_figures(coco, detections)["mean"]
    keys = {"": "AP", "_50": "AP50", "_s": "AP_small", "_m": "AP_medium"}
    for key, name in keys.items():
        assert mean[name] == pytest.approx(metrics[f"coco/bbox_mAP{key}"], abs=1e-3)


def test_nothing_detected():
    truth, _ = random_case(0)
    figures = detection_figures(truth, [])
    assert figures["mean"]["AP"] == figures["mean"]["AP50"] == 0
    assert figures["images_evaluated"] == len(truth["images"])


def test_perfect():
    truth, _ = random_case(0, crowd=0)
    keys = "image_id", "category_id", "bbox"
    found = [{**{k: a[k] for k in keys}, "score": 0.8} for a in truth["annotations"]]
    figures = detection_figures(truth, found)
    assert figures["mean"]["AP"] == 1
    assert not any(figures["errors"].values()) and not figures["images"]
    matrix = np.array(figures["confusion"]["matrix"])
    assert (matrix == np.diag(matrix.diagonal())).all()
    assert figures["calibration"] == [
        dict(score=pytest.approx(0.8), right=1.0, detections=len(found))
    ]
    assert all(row["threshold"] == row["recall"] * 0.8 for row in figures["classes"])


def test_wrong_class_alone():
    truth, _ = random_case(1, classes=1)
    truth["categories"].append(dict(id=2, name="other"))
    own = truth["annotations"][0]
    found = [dict(image_id=own["image_id"], category_id=2, bbox=own["bbox"], score=0.9)]
    figures = detection_figures(truth, found)
    assert [row["threshold"] for row in figures["classes"]] == [None, None]
    assert [row["AP"] for row in figures["classes"]] == [0, None]
    assert figures["errors"]["classification"] > 0
