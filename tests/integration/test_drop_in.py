"""The detectors of docs/compatibility.md: build, loss, backward pass and prediction."""

import re
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope

from ghostdet.models.backbones.ghostnet import level_channels

CONFIGS = Path(mmdet.__file__).parent / ".mim/configs"
PAGE = Path(__file__).parents[2] / "docs/compatibility.md"
# Name, config and out_indices of each row.
DETECTORS = re.findall(r"^\| (.+?) \| `(.+?)` \| (.+?) \|$", PAGE.read_text(), re.M)
QUICK = {"ATSS", "FCOS", "YOLOX", "RTMDet", "CenterNet", "RPN"}  # a second each


@pytest.fixture(autouse=True)
def in_mmdet():
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


@pytest.fixture
def batch(coco, name):
    """A function that loads two images."""
    with_mask = name == "Mask R-CNN"
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


def replace_backbone(path: str, indices: str, widen_factor: float) -> Config:
    """Load a config with GhostNet and its channels in the neck."""
    cfg = Config.fromfile(CONFIGS / path)
    out_indices = cfg.model.backbone.get("out_indices", (0, 1, 2, 3))
    if indices != "unchanged":
        out_indices = tuple(map(int, indices.split(", ")))
    cfg.model.backbone = dict(
        type="GhostNet", widen_factor=widen_factor, out_indices=out_indices
    )
    channels = [level_channels(widen_factor)[i] for i in out_indices]
    neck = cfg.model.neck
    neck = neck[0] if isinstance(neck, list) else neck
    neck.in_channels = channels[-1] if isinstance(neck.in_channels, int) else channels
    return cfg


def test_page():
    assert len(DETECTORS) == 22 and {name for name, *_ in DETECTORS} > QUICK


@pytest.mark.parametrize(
    "name, path, indices",
    [
        pytest.param(*row, id=row[0], marks=() if row[0] in QUICK else pytest.mark.long)
        for row in DETECTORS
    ],
)
def test_detector(name, path, indices, batch):
    torch.manual_seed(0)
    model = MODELS.build(replace_backbone(path, indices, widen_factor=0.5).model)
    model.init_weights()
    model.train()
    MessageHub.get_current_instance().update_info_dict(dict(iter=0, epoch=0))
    data = model.data_preprocessor(batch(), training=True)
    loss, _ = model.parse_losses(model(**data, mode="loss"))
    loss.backward()
    assert torch.isfinite(loss)
    for key, parameter in model.backbone.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
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
