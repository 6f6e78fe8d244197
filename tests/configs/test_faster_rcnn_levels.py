"""Faster R-CNN with and without stride 4: anchors and RoIs of the same sizes."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config

CONFIGS = Path(__file__).parents[2] / "configs"


def model_of(name):
    return Config.fromfile(CONFIGS / f"{name}.py").model


@pytest.fixture(scope="module")
def models():
    return model_of("faster_rcnn_ghostnet_fpn"), model_of("faster_rcnn_ghostnet_fpn_p2")


def test_anchors(models):
    base, p2 = (
        TASK_UTILS.build(model.rpn_head.anchor_generator).base_anchors
        for model in models
    )
    assert [len(anchors) for anchors in base] == [3] * 5
    for anchors, others in zip(base, p2):
        sizes = anchors[:, 2:] - anchors[:, :2]
        assert torch.allclose(sizes, others[:, 2:] - others[:, :2])
    areas = [(a[1, 2:] - a[1, :2]).prod().sqrt().item() for a in base]
    assert areas == pytest.approx([32, 64, 128, 256, 512])


def strides(model, scales):
    """Strides of the levels that RoIs of some scales are pooled from."""
    extractor = MODELS.build(model.roi_head.bbox_roi_extractor)
    zero = torch.zeros(len(scales))
    rois = torch.stack([zero, zero, zero, scales, scales], dim=1)
    levels = extractor.map_roi_levels(rois, len(extractor.featmap_strides))
    return [extractor.featmap_strides[level] for level in levels]


def test_roi_levels(models):
    scales = torch.tensor([112.0, 150, 223, 225, 300, 447, 449, 800])
    expected = [8, 8, 8, 16, 16, 16, 32, 32]
    base, p2 = models
    assert strides(base, scales) == strides(p2, scales) == expected
    small = torch.tensor([8.0, 32, 64, 111])
    assert strides(base, small) == [8] * 4
    assert strides(p2, small) == [4] * 4
