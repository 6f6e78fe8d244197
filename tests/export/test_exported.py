"""Exported detectors in place of a checkpoint."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from ghostdet import apis
from ghostdet.apis import infer
from ghostdet.errors import ConfigError, UserError
from ghostdet.models import ExportedDetector
from ghostdet.runtime import Detector

RATIO = dict(scale=[320, 200], keep_ratio=True)


def options(batch_size=1, **others):
    """Options of a config that resizes by RATIO."""
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=(320, 200), keep_ratio=True),
        dict(type="LoadAnnotations", with_bbox=True),
        dict(
            type="PackDetInputs",
            meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
        ),
    ]
    return {
        "test_dataloader.dataset.pipeline": pipeline,
        "test_dataloader.batch_size": batch_size,
        **others,
    }


def compare(detections, boxes, scores, labels):
    np.testing.assert_allclose(boxes, detections.boxes, rtol=1e-6)
    np.testing.assert_allclose(scores, detections.scores, rtol=1e-6)
    assert list(labels) == detections.labels.tolist()


@pytest.fixture
def shapes(own_cells):
    """A dataset with images of several shapes, so that batches are padded."""
    import cv2

    file = own_cells / "annotations/test.json"
    coco = json.loads(file.read_text())
    for number, image in enumerate(coco["images"]):
        path = own_cells / "images" / image["file_name"]
        cv2.imwrite(path, cv2.imread(path)[: 480 - 70 * number, : 640 - 31 * number])
    return own_cells


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_evaluation(tmp_path, tiny, export, shapes, suffix):
    path = export(suffix, resize=RATIO)
    # An exported detector has its own mean, and no weights to average or load.
    others = {
        "custom_hooks": [dict(type="EMAHook")],
        "data_preprocessor": dict(type="DetDataPreprocessor", mean=[1], std=[1]),
        "load_from": "nowhere.pth",
    }
    cfg = tiny(options(3, **others), shapes)
    metrics = apis.test(cfg, path, out=str(tmp_path / "out.pkl"))
    assert "coco/bbox_mAP" in metrics
    detector = Detector(path)
    predictions = pickle.loads((tmp_path / "out.pkl").read_bytes())
    assert len(predictions) == 4
    for prediction in predictions:
        expected = detector(prediction["img_path"])
        found = prediction["pred_instances"]
        compare(expected, found["bboxes"], found["scores"], found["labels"])


def test_inference(tmp_path, tiny, export, own_cells):
    path = export()
    image = min((own_cells / "images").iterdir())
    target = infer(image, tiny(data_root=own_cells), path, tmp_path / "out")
    results = json.loads(target.read_text())
    boxes = np.array([result["bbox"] for result in results])
    boxes[:, 2:] += boxes[:, :2]
    compare(
        Detector(path)(image),
        boxes,
        [result["score"] for result in results],
        [result["category_id"] - 1 for result in results],
    )
    assert (tmp_path / "out" / image.name).is_file()


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            dict(classes=["WBC", "RBC", "Platelets"]),
            "3 classes, WBC, RBC, .*has 3, RBC, WBC, ",
        ),
        (dict(classes=["RBC"]), "detects 1 classes"),
        (
            dict(resize=dict(scale=[128, 96], keep_ratio=False)),
            r"Resize of \{'scale': \[128, 96\].*has \{'scale': \[256, 256\]",
        ),
    ],
    ids=["order", "number", "size"],
)
def test_another_config(tmp_path, tiny, export, own_cells, changes, message):
    path = export(**changes)
    with pytest.raises(UserError, match=message):
        apis.test(tiny(data_root=own_cells), path)
    with pytest.raises(UserError, match=message):
        infer(own_cells / "images", tiny(data_root=own_cells), path, tmp_path / "out")


def test_mistakes(tmp_path, tiny, export, own_cells):
    path = export()
    shutil.move(path.with_suffix(".json"), tmp_path / "other.json")
    with pytest.raises(UserError, match="no file .*small.json"):
        apis.test(tiny(data_root=own_cells), path)
    with pytest.raises(UserError, match="no file .*nowhere.xml"):
        ExportedDetector(tmp_path / "nowhere.xml")
    shutil.move(tmp_path / "other.json", path.with_suffix(".json"))
    cfg = tiny(data_root=own_cells)
    cfg.launcher = "pytorch"
    with pytest.raises(UserError, match="one process; leave out --launcher"):
        apis.test(cfg, path)
    for mode in ("loss", "tensor"):
        with pytest.raises(ConfigError, match="can only predict"):
            ExportedDetector(path)(torch.zeros(1, 3, 8, 8), [DetDataSample()], mode)
