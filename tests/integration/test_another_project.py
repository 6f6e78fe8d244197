"""A project elsewhere whose config has only ``custom_imports`` from ghostdet."""

import json
import shutil

import pytest

CONFIG = """
custom_imports = dict(imports=["ghostdet"], allow_failed_imports=False)
default_scope = "mmdet"

model = dict(
    type="FCOS",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(type="GhostNet", widen_factor=0.5, out_indices=(1, 2, 3)),
    neck=dict(
        type="GhostNetFPN",
        widen_factor=0.5,
        strides=(8, 16, 32),
        out_channels=32,
        num_outs=3,
    ),
    bbox_head=dict(
        type="FCOSHead",
        num_classes=2,
        in_channels=32,
        feat_channels=32,
        stacked_convs=1,
        strides=[8, 16, 32],
        regress_ranges=((-1, 64), (64, 128), (128, 9999)),
        norm_cfg=dict(type="GN", num_groups=8),
    ),
    test_cfg=dict(
        nms_pre=100,
        min_bbox_size=0,
        score_thr=0.0,
        nms=dict(type="nms", iou_threshold=0.5),
        max_per_img=10,
    ),
)
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(160, 160), keep_ratio=True),
    dict(type="PackDetInputs"),
]
dataset = dict(
    type="CocoDataset",
    metainfo=dict(classes=("red", "white")),
    data_root="cells",
    ann_file="cells.json",
    data_prefix=dict(img=""),
    pipeline=pipeline,
)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dataset,
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(test_mode=True, **dataset),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric", ann_file="cells/cells.json")
test_evaluator = val_evaluator
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.001))
work_dir = "out"
"""
SCRIPT = """
import ghostdet
from mmengine.config import Config
from mmengine.runner import Runner

Runner.from_cfg(Config.fromfile("config.py")).train()
"""


@pytest.fixture
def elsewhere(tmp_path, cells):
    """A folder with a config, a script and four images with two classes."""
    names = {1: "red", 2: "white"}
    coco = json.loads((cells / "annotations/train.json").read_text())
    coco["images"] = coco["images"][:4]
    ids = {image["id"] for image in coco["images"]}
    coco["categories"] = [dict(id=i * 10, name=name) for i, name in names.items()]
    coco["annotations"] = [
        {**a, "category_id": a["category_id"] * 10}
        for a in coco["annotations"]
        if a["image_id"] in ids and a["category_id"] in names
    ]
    folder = tmp_path / "elsewhere"
    (folder / "cells").mkdir(parents=True)
    (folder / "cells/cells.json").write_text(json.dumps(coco))
    for image in coco["images"]:
        shutil.copy(cells / "images" / image["file_name"], folder / "cells")
    (folder / "config.py").write_text(CONFIG)
    (folder / "script.py").write_text(SCRIPT)
    return folder


@pytest.mark.long
def test_by_our_tools(command, elsewhere):
    module = ["-m", "ghostdet"]
    result = command(*module, "train", "config.py", cwd=elsewhere)
    assert result.returncode == 0, result.stderr
    assert (elsewhere / "out/epoch_1.pth").is_file()
    result = command(*module, "test", "config.py", "out/epoch_1.pth", cwd=elsewhere)
    assert result.returncode == 0, result.stderr
    assert "Average Precision  (AP) @[ IoU=0.50:0.95" in result.stdout
    result = command(
        *(*module, "infer", "cells", "--config", "config.py"),
        *("--checkpoint", "out/epoch_1.pth", "--out", "found"),
        cwd=elsewhere,
    )
    assert result.returncode == 0, result.stderr
    detections = json.loads((elsewhere / "found/results.json").read_text())
    assert {d["category_id"] for d in detections} <= {10, 20}
    assert len(list((elsewhere / "found").glob("*.jpg"))) == 4


def test_by_mmengine(command, elsewhere):
    result = command("script.py", cwd=elsewhere)
    assert result.returncode == 0, result.stderr
    assert (elsewhere / "out/epoch_1.pth").is_file()
