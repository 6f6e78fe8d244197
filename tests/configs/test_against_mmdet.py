"""Our configs beside MMDetection's own on ResNet-50: only what is listed differs."""

import re
from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config

CONFIGS = Path(__file__).parents[2] / "configs"
MMDET = Path(mmdet.__file__).parent / ".mim/configs"

# Patterns of keys, each with what it stands for. A list entry is keyed by its number.
COMMON = [
    r"model\.backbone\..*",  # GhostNet for ResNet-50
    r"model\.neck\.type",
    r"model\.neck\.widen_factor",
    r"model\.neck\.strides\.\d",
    r"model\.neck\.in_channels\.\d",
    r"custom_imports\..*",  # ghostdet
    r"custom_hooks\.0\.type",  # CheckpointGuardHook
    r"dataset_type|(train|val|test)_dataloader\.dataset\.type",  # shared annotations
    # An unreadable image in training is passed over.
    r"train_pipeline\.0\.type",
    r"train_pipeline\.0\.max_unreadable",
    r"train_dataloader\.dataset\.pipeline\.0\.type",
    r"train_dataloader\.dataset\.pipeline\.0\.max_unreadable",
    r"(.+\.)?backend_args",  # None there
    r"env_cfg\.dist_cfg\.timeout",  # for evaluations, for which ranks wait
]
RETINANET = [
    *COMMON,
    r"model\.neck\.start_level",  # our neck takes three taps, not four of which three
    # Of test time augmentation, which only its retinanet configs bring along.
    r"tta_model\..*",
    r"tta_pipeline\..*",
    r"img_scales\..*",
]
FASTER_RCNN_P2 = [
    *COMMON,
    r"model\.roi_head\.bbox_roi_extractor\.finest_scale",  # the default, said
]
# No stride 4: all levels have twice the stride, and anchors and RoIs keep their sizes.
FASTER_RCNN = [
    *COMMON,
    r"model\.rpn_head\.anchor_generator\.(scales|strides)\.\d",
    r"model\.roi_head\.bbox_roi_extractor\.(featmap_strides\.\d|finest_scale)",
]


def flat(node, prefix=""):
    """Leaves of nested dicts and lists by dotted key."""
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    else:
        return {prefix: node}
    leaves = {}
    for key, value in items:
        leaves |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


@pytest.mark.parametrize(
    "ours, theirs, listed",
    [
        (
            "retinanet_ghostnet_fpn.py",
            "retinanet/retinanet_r50_fpn_1x_coco.py",
            RETINANET,
        ),
        (
            "faster_rcnn_ghostnet_fpn.py",
            "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
            FASTER_RCNN,
        ),
        (
            "faster_rcnn_ghostnet_fpn_p2.py",
            "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
            FASTER_RCNN_P2,
        ),
    ],
)
def test_only_listed_differences(ours, theirs, listed):
    ours = flat(Config.fromfile(CONFIGS / ours)._cfg_dict.to_dict())
    theirs = flat(Config.fromfile(MMDET / theirs)._cfg_dict.to_dict())
    absent = object()
    different = {
        key
        for key in ours.keys() | theirs.keys()
        if ours.get(key, absent) != theirs.get(key, absent)
    }
    unlisted = [
        f"{key}: {ours.get(key, '-')}, not {theirs.get(key, '-')}"
        for key in sorted(different)
        if not any(re.fullmatch(pattern, key) for pattern in listed)
    ]
    assert not unlisted
    stale = [p for p in listed if not any(re.fullmatch(p, key) for key in different)]
    assert not stale
