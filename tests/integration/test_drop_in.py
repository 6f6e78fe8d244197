"""MMDetection's detectors on GhostNet: build, loss, backward pass and prediction."""

import importlib.util
from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope

path = Path(__file__).with_name("drop_in.py")
spec = importlib.util.spec_from_file_location("drop_in", path)
drop_in = importlib.util.module_from_spec(spec)
spec.loader.exec_module(drop_in)

QUICK = {"ATSS", "FCOS", "YOLOX", "RTMDet", "CenterNet", "RPN"}  # a second each


@pytest.fixture(autouse=True)
def in_mmdet():
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


@pytest.fixture
def batch(coco, detector):
    """A function that loads two images."""
    with_mask = detector.name == "Mask R-CNN"
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = DATASETS.build(
            dict(
                type="CocoDataset",
                data_root=f"{coco}/",
                ann_file="annotations/instances_train2017.json",
                data_prefix=dict(img="train2017/"),
                filter_cfg=dict(filter_empty_gt=True),
                pipeline=[
                    dict(type="LoadImageFromFile"),
                    dict(type="LoadAnnotations", with_bbox=True, with_mask=with_mask),
                    dict(type="Resize", scale=(256, 256), keep_ratio=True),
                    dict(type="Pad", size_divisor=32),
                    dict(type="PackDetInputs"),
                ],
            )
        )
    return lambda: pseudo_collate([dataset[1], dataset[2]])


@pytest.mark.parametrize(
    "detector",
    [
        pytest.param(d, id=d.name, marks=() if d.name in QUICK else pytest.mark.long)
        for d in drop_in.DETECTORS
    ],
)
def test_detector(detector, batch):
    torch.manual_seed(0)
    cfg = drop_in.replace_backbone(detector, widen_factor=0.5)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    MessageHub.get_current_instance().update_info_dict(dict(iter=0, epoch=0))
    data = model.data_preprocessor(batch(), training=True)
    loss, _ = model.parse_losses(model(**data, mode="loss"))
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in model.backbone.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert any(p.grad.abs().sum() > 0 for p in model.backbone.parameters())
    model.eval()
    with torch.no_grad():
        data = model.data_preprocessor(batch(), training=False)
        for sample in data["data_samples"]:
            sample.set_metainfo(dict(border=[0.0] * 4))  # from CenterNet's transform
        for sample in model(**data, mode="predict"):
            boxes = sample.pred_instances.bboxes
            assert boxes.shape[1:] == (4,)
            assert torch.isfinite(boxes).all()


def test_page_is_current(project):
    assert (project / "docs/compatibility.md").read_text() == drop_in.page()
