"""The whole chain: a folder of images, a classifier, its backbone in a detector."""

import json

import pytest
import safetensors.torch
import torch
from timm.models.ghostnet import _create_ghostnet

from ghostdet import apis
from ghostdet.apis import load_model, train
from ghostdet.config import load_config
from ghostdet.engine import CheckpointGuardHook
from ghostdet.models import GhostNet
from ghostdet.weights import load_pretrained
from ghostdet.weights.convert import convert
from ghostdet.weights.publish import publish

SIZE = 64

IN_ONE_PROCESS = {
    f"{part}_dataloader.{key}": value
    for part in ("train", "val", "test")
    for key, value in (("num_workers", 0), ("persistent_workers", False))
}
CLASSIFIER = {
    **IN_ONE_PROCESS,
    "model.head.num_classes": 4,
    "train_dataloader.batch_size": 12,
    "train_dataloader.dataset.pipeline.0.size": SIZE,
    "train_dataloader.dataset.pipeline.0.scale": (0.5, 1.0),
    **{
        f"{part}_dataloader.dataset.pipeline.{step}.size": SIZE
        for part in ("val", "test")
        for step in (0, 1)
    },
    "val_evaluator.topk": (1, 2),
    "test_evaluator.topk": (1, 2),
    "train_cfg.max_epochs": 2,
    "train_cfg.val_interval": 2,
    "param_scheduler": [],
    "optim_wrapper.optimizer": dict(_delete_=True, type="AdamW", lr=0.001),
    "auto_scale_lr.base_batch_size": 12,
    "randomness": dict(seed=0),
}
DETECTOR = {
    **IN_ONE_PROCESS,
    "train_dataloader.dataset.indices": 4,
    "train_dataloader.dataset.pipeline.2.scale": (128, 128),
    "val_dataloader.dataset.indices": 2,
    "val_dataloader.dataset.pipeline.1.scale": (128, 128),
    "test_dataloader.dataset.indices": 2,
    "test_dataloader.dataset.pipeline.1.scale": (128, 128),
    "train_cfg.max_epochs": 1,
    "param_scheduler": [],
    "model.test_cfg.score_thr": 0.0,  # an untrained detector scores low
}


@pytest.mark.long
def test_pretrain_publish_detect(
    digit_folders, coco, project, tmp_path, new_run, monkeypatch
):
    config = project / "configs/classification/ghostnet_110_in1k.py"
    new_run()
    train(load_config(config, tmp_path / "classifier", digit_folders, CLASSIFIER))
    (best,) = (tmp_path / "classifier").glob("best_accuracy_top1_epoch_*.pth")

    out = tmp_path / "digits.safetensors"
    publish(str(best), str(out), load_config(config, cfg_options=CLASSIFIER))
    description = json.loads(out.with_suffix(".json").read_text())
    assert description["classes"] == ["n0", "n1", "n2", "n3"]
    new_run()
    options = {k: v for k, v in IN_ONE_PROCESS.items() if k.startswith("test")}
    options["test_evaluator.topk"] = (1, 2)
    cfg = load_config(out, tmp_path / "test", digit_folders, options)
    metrics = apis.test(cfg, out)
    assert metrics["accuracy/top2"] >= metrics["accuracy/top1"] > 25  # chance

    # The checkpoint itself can be loaded too, and timm can load its weights.
    backbone, x = GhostNet(1.1), torch.randn(2, 3, SIZE, SIZE)
    load_pretrained(backbone, best)
    published = safetensors.torch.load_file(out)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, published[f"backbone.{name}"]), name
    convert(str(best), str(tmp_path / "official.safetensors"))
    theirs = _create_ghostnet("ghostnet_100", width=1.1, num_classes=4).eval()
    theirs.load_state_dict(
        safetensors.torch.load_file(tmp_path / "official.safetensors"), strict=True
    )
    ours = load_model(out, out)
    ours.backbone.channels_last = False
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))

    starts = []

    def keep(hook, runner):
        weights = runner.model.backbone.state_dict()
        starts.append({name: value.clone() for name, value in weights.items()})

    monkeypatch.setattr(CheckpointGuardHook, "before_train", keep)
    config = project / "configs/retinanet_ghostnet_fpn.py"
    override = {"model.backbone.init_cfg.checkpoint": str(out)}
    new_run()
    work_dir = tmp_path / "detector"
    cfg = load_config(config, work_dir, coco, {**DETECTOR, **override})
    runner = train(cfg)
    (start,) = starts
    for name, value in start.items():
        assert torch.equal(value, published[f"backbone.{name}"]), name
    stem = runner.model.backbone.conv_stem.weight
    assert not torch.equal(stem, start["conv_stem.weight"])
    (log,) = work_dir.rglob("*.log")
    assert f"GhostNet 1.1x from {out} (classifier" in log.read_text()

    new_run()
    cfg = load_config(config, work_dir, coco, {**DETECTOR, **override})
    metrics = apis.test(cfg, work_dir / "epoch_1.pth")
    validated = runner.message_hub.log_scalars
    assert "coco/bbox_mAP" in metrics
    assert metrics == {name: validated[f"val/{name}"].current() for name in metrics}
