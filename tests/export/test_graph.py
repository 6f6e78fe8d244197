"""The graph finds what MMDetection's own predict finds."""

import copy

import pytest
import torch
from mmdet.models.dense_heads import PAAHead
from mmdet.models.roi_heads import CascadeRoIHead
from torch import nn

from ghostdet.errors import UserError
from ghostdet.export import fuse_for_inference
from ghostdet.export.graph import DetectionGraph

from .heads import HEADS, NMS, assert_same, build, padded, predicted

POOL_MODE = ("pool_mode", "max")


def run(model, images):
    graph = DetectionGraph(fuse_for_inference(copy.deepcopy(model)))
    with torch.no_grad():
        return graph(padded(images), torch.tensor(images.shape[-2:]))


@pytest.mark.parametrize("kind", [*HEADS, "FasterRCNN"])
def test_detectors(kind):
    model = build(kind)
    torch.manual_seed(1)
    images = 2 * torch.randn(2, 3, 150, 200)
    expected = predicted(model, images)
    assert assert_same(run(model, images), expected) > 10


@pytest.mark.parametrize("shape", [(1, 200), (77, 1), (1, 1)])
@pytest.mark.parametrize("kind", ["RetinaNet", "FasterRCNN"])
def test_narrow_images(kind, shape):
    model = build(kind, score_thr=0.0)
    torch.manual_seed(1)
    images = 2 * torch.randn(2, 3, *shape)
    outputs = run(model, images)
    assert_same(outputs, predicted(model, images))
    boxes = outputs[0]
    assert boxes.amin() >= 0
    assert boxes[..., 0::2].amax() <= shape[1] and boxes[..., 1::2].amax() <= shape[0]


@pytest.mark.parametrize(
    "changes",
    [
        dict(nms=dict(NMS, class_agnostic=True)),
        dict(max_per_img=5),
        dict(score_thr=2.0),  # nothing
        dict(nms_pre=100000),  # all
        dict(min_bbox_size=-1),
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_configs(changes):
    model = build("RTMDet", **changes)
    torch.manual_seed(1)
    images = 2 * torch.randn(2, 3, 96, 128)
    assert_same(run(model, images), predicted(model, images))


@pytest.mark.parametrize(
    "kind, change, message",
    [
        ("RTMDet", lambda m: m.bbox_head.test_cfg.nms.update(type="soft_nms"), "soft"),
        (
            "RTMDet",
            lambda m: m.bbox_head.test_cfg.pop("nms_pre"),
            "without nms_pre .set",
        ),
        (
            "RTMDet",
            lambda m: m.bbox_head.test_cfg.update(min_bbox_size=2),
            "with min_bbox_size .set",
        ),
        ("RTMDet", lambda m: m.bbox_head.test_cfg.update(max_per_img=-1), "per_img=-1"),
        ("RTMDet", lambda m: setattr(m, "bbox_head", nn.Identity()), "head Identity"),
        ("ATSS", lambda m: setattr(m.bbox_head, "__class__", PAAHead), "head PAAHead"),
        (
            "FasterRCNN",
            lambda m: setattr(m.roi_head, "__class__", CascadeRoIHead),
            "roi_head CascadeRoIHead cannot be exported; ghostdet exports .*RetinaHead",
        ),
        (
            "FasterRCNN",
            lambda m: setattr(m.roi_head.bbox_roi_extractor.roi_layers[1], *POOL_MODE),
            "bbox_roi_extractor with RoIAlign.*max",
        ),
    ],
)
def test_what_cannot_be_exported(kind, change, message):
    model = build(kind)
    change(model)
    with pytest.raises(UserError, match=message):
        DetectionGraph(model)
