"""Our configs differ from MMDetection's, and among each other, only as listed."""

import re
from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config

CONFIGS = Path(__file__).parents[2] / "configs"
MMDET = Path(mmdet.__file__).parent / ".mim/configs"

# Patterns of keys that differ. A list entry is keyed by its number.
COMMON = [
    r"model\.backbone\..*",  # GhostNet for ResNet-50
    r"(model\.neck\.)?widen_factor",
    r"model\.neck\.type",
    r"model\.neck\.strides\.\d",
    r"model\.neck\.in_channels\.\d",
    r"num_classes|anchor_scale",  # values at the top
    r"custom_imports\..*",  # ghostdet
    r"custom_hooks\.0\.type",  # CheckpointGuardHook
    # Unreadable training images are replaced.
    r"train_pipeline\.0\.max_unreadable",
    r"train_dataloader\.dataset\.pipeline\.0\.max_unreadable",
    r"(.+\.)?backend_args",  # None there
    r"env_cfg\.dist_cfg\.timeout",  # ranks wait for the evaluation
]
RETINANET = [
    *COMMON,
    r"model\.neck\.start_level",  # our neck gets three levels, theirs skips the first
    # Test time augmentation, which only their RetinaNet configs have.
    r"tta_model\..*",
    r"tta_pipeline\..*",
    r"img_scales\..*",
]
FASTER_RCNN_P2 = [
    *COMMON,
    r"model\.roi_head\.bbox_roi_extractor\.finest_scale",  # the default, spelled out
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


def load(path):
    return flat(Config.fromfile(path).to_dict())


def different(ours, theirs):
    """Keys with another value, or that only one of two configs has."""
    keys = ours.keys() | theirs.keys()
    return sorted(key for key in keys if ours.get(key, ...) != theirs.get(key, ...))


@pytest.mark.parametrize(
    "ours, theirs, listed",
    [
        ("retinanet_ghostnet_fpn", "retinanet/retinanet_r50_fpn_1x_coco", RETINANET),
        (
            "faster_rcnn_ghostnet_fpn",
            "faster_rcnn/faster-rcnn_r50_fpn_1x_coco",
            FASTER_RCNN,
        ),
        (
            "faster_rcnn_ghostnet_fpn_p2",
            "faster_rcnn/faster-rcnn_r50_fpn_1x_coco",
            FASTER_RCNN_P2,
        ),
    ],
)
def test_only_listed_differences(ours, theirs, listed):
    keys = different(load(CONFIGS / f"{ours}.py"), load(MMDET / f"{theirs}.py"))
    assert not [k for k in keys if not any(re.fullmatch(p, k) for p in listed)]
    stale = [p for p in listed if not any(re.fullmatch(p, key) for key in keys)]
    assert not stale


@pytest.mark.parametrize("detector", ["retinanet", "faster_rcnn"])
@pytest.mark.parametrize(
    "variant, key", [("norm_eval", "model.backbone.norm_eval"), ("sync_bn", "sync_bn")]
)
def test_variants_of_batch_norm(detector, variant, key):
    name = f"{detector}_ghostnet_fpn"
    both = load(CONFIGS / f"{name}.py"), load(CONFIGS / f"{name}_{variant}.py")
    assert different(*both) == [key]


@pytest.mark.parametrize("detector", ["retinanet", "faster_rcnn"])
@pytest.mark.parametrize("backbone", ["mobilenetv2", "mobilenetv3"])
def test_the_papers_configs_differ_in_the_backbone(detector, backbone):
    ours, theirs = (
        load(CONFIGS / f"{detector}_{name}_fpn.py") for name in ("ghostnet", backbone)
    )
    pattern = r"model\.backbone\..*|(model\.neck\.)?(type|widen_factor|strides.*)"
    pattern += r"|model\.neck\.in_channels.*|find_unused_parameters"
    assert not [k for k in different(ours, theirs) if not re.fullmatch(pattern, k)]
