"""A project elsewhere whose config has only ``custom_imports`` from ghostdet."""

import json
import shutil

import pytest

CONFIG = """
_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["ghostdet"], allow_failed_imports=False)
levels = dict(widen_factor=0.5, out_channels=32, num_outs=3)
anchors = dict(octave_base_scale=4, strides=[8, 16, 32])
small = dict(num_classes=2, in_channels=32, feat_channels=32, stacked_convs=1)
model = dict(
    backbone=dict(
        _delete_=True, type="GhostNet", widen_factor=0.5, out_indices=(1, 2, 3)
    ),
    neck=dict(_delete_=True, type="GhostNetFPN", **levels),
    bbox_head=dict(anchor_generator=anchors, **small),
    test_cfg=dict(score_thr=0.0),
)
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(160, 160), keep_ratio=True),
    dict(type="PackDetInputs"),
]
own = dict(
    metainfo=dict(classes=("red", "white")),
    data_root="cells",
    ann_file="cells.json",
    data_prefix=dict(img=""),
    pipeline=pipeline,
)
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=1, dataset=own, **workers)
val_dataloader = dict(dataset=own, **workers)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file="cells/cells.json")
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
work_dir = "out"
"""
SCRIPT = """
import pkgutil
import sys

vars(pkgutil).pop("find_loader", None)  # as in Python 3.14
sys.modules["pkg_resources"] = None  # as in setuptools 82

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
