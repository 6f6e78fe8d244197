"""Evaluations other than the plain one."""

import json
import pickle
from pathlib import Path

import mmdet
import pytest
import torch
from unchecked import train

from ghostdet import apis
from ghostdet.apis.model import build_model
from ghostdet.config import load_config
from ghostdet.errors import UserError


def test_time_augmentation(tiny, trained, tmp_path):
    """It adds the detections in the mirror image, and keeps the training's config."""
    (tmp_path / "run").mkdir()
    dumped = tmp_path / "run/retinanet_ghostnet_small_bccd.py"
    dumped.touch()
    checkpoint, out, best = trained / "iter_4.pth", tmp_path / "out.pkl", []
    for tta in (False, True):
        cfg = tiny({"resume": True})  # as MMEngine's tools write it
        loader = cfg.test_dataloader
        loader.dataset = dict(type="ConcatDataset", datasets=[loader.dataset])
        apis.test(cfg, checkpoint, out=str(out), tta=tta)
        predictions = pickle.loads(out.read_bytes())
        scores = [p["pred_instances"]["scores"].max() for p in predictions]
        best.append(torch.stack(scores))
    assert (best[1] >= best[0] - 1e-6).all() and (best[1] > best[0]).any()
    assert not dumped.read_text()


@pytest.mark.parametrize("kind", ["CocoMetric", "FastCocoMetric"])
def test_table_of_classes(tiny, trained, capfd, kind):
    """The log has it; metrics have it only where the config says so."""
    added = {f"coco/{name}_precision" for name in ("RBC", "WBC", "Platelets")}
    for options, expected in (({}, set()), ({"classwise": True}, added)):
        options = {f"test_evaluator.{k}": v for k, v in options.items()}
        cfg = tiny({**options, "test_evaluator.type": kind})
        metrics = apis.test(cfg, trained / "iter_4.pth")
        assert "coco/bbox_mAP" in metrics
        assert {k for k in metrics if "_precision" in k} == expected
        log = capfd.readouterr()
        assert "| Platelets |" in log.out + log.err


@pytest.mark.parametrize(
    "evaluator, message",
    [
        (dict(type="VOCMetric"), "has VOCMetric, expected a CocoMetric; add dict"),
        (dict(type="CocoMetric"), "no ann_file, and the test set has 2 datasets, exp"),
    ],
)
def test_results_need_coco(tiny, trained, tmp_path, evaluator, message):
    """It is said before the test."""
    cfg = tiny()
    dataset = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(type="ConcatDataset", datasets=[dataset] * 2)
    cfg.test_evaluator = [evaluator]
    with pytest.raises(UserError, match=message):
        apis.test(cfg, trained / "iter_4.pth", results=str(tmp_path / "a"))


def test_no_augmentation_of_an_exported_detector(tiny):
    with pytest.raises(UserError, match="has no --tta; give the checkpoint"):
        apis.test(tiny(), "a.onnx", tta=True)


def test_pictures_keep_their_folders(tiny, trained, own_cells, tmp_path):
    path = own_cells / "annotations/test.json"
    coco = json.loads(path.read_text())
    for number, image in enumerate(coco["images"]):
        source = own_cells / "images" / image["file_name"]
        image["file_name"] = f"cam{number}/0.jpg"
        source.rename(tmp_path / "image")
        (own_cells / "images" / f"cam{number}").mkdir()
        (tmp_path / "image").rename(own_cells / "images" / image["file_name"])
    path.write_text(json.dumps(coco))
    apis.test(
        tiny(None, own_cells), trained / "iter_4.pth", show_dir=str(tmp_path / "a")
    )
    found = {
        str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*.jpg")
    }
    assert found == {f"cam{number}/0.jpg" for number in range(4)}


def test_classes_in_another_order(tiny, trained, tmp_path):
    """A checkpoint is refused in testing, resuming and training."""
    content = torch.load(trained / "iter_4.pth", weights_only=False)
    content["meta"]["dataset_meta"] = dict(classes=("WBC", "RBC", "Platelets"))
    path = str(tmp_path / "a.pth")
    torch.save(content, path)
    for run in (
        lambda: apis.test(tiny(), path),
        lambda: train(tiny(), resume=path),
        lambda: train(tiny({"load_from": path})),
    ):
        with pytest.raises(UserError, match="classes RBC, .*a.pth was trained on WBC,"):
            run()


def test_rpn(coco, tmp_path, new_run):
    """It has one class, whatever the dataset has."""
    base = Path(mmdet.__file__).parent / ".mim/configs/rpn/rpn_r50_fpn_1x_coco.py"
    text = f"""
_base_ = "{base}"
model = dict(
    backbone=dict(_delete_=True, type="GhostNet", widen_factor=0.5),
    neck=dict(in_channels=[12, 20, 56, 80]),
)
"""
    (tmp_path / "rpn.py").write_text(text)
    new_run()
    cfg = load_config(tmp_path / "rpn.py", tmp_path / "run", coco)
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader.dataset.pipeline[1].scale = (160, 160)
    torch.save(build_model(cfg).state_dict(), tmp_path / "a.pth")
    assert apis.test(cfg, tmp_path / "a.pth")["coco/AR@100"] >= 0
