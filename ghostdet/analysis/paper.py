"""Figures of the paper by config, and when they apply to another config.

"GhostNet: More Features from Cheap Operations" (https://arxiv.org/abs/1911.11907), as
others quote its tables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ghostdet import CONFIGS
from ghostdet.config import load_config
from ghostdet.utils.components import walk

#: mAP on COCO in percent. The paper does not say how it treats BN.
COCO = {
    "retinanet_ghostnet_fpn": 26.6,
    "retinanet_ghostnet_fpn_norm_eval": 26.6,
    "retinanet_ghostnet_fpn_sync_bn": 26.6,
    "retinanet_mobilenetv2_fpn": 26.7,
    "retinanet_mobilenetv3_fpn": 26.4,
    "faster_rcnn_ghostnet_fpn": 26.9,
    "faster_rcnn_ghostnet_fpn_norm_eval": 26.9,
    "faster_rcnn_ghostnet_fpn_sync_bn": 26.9,
    "faster_rcnn_mobilenetv2_fpn": 27.5,
    "faster_rcnn_mobilenetv3_fpn": 26.9,
}
#: Classifiers: parameters and MACs in millions, top-1 in percent.
CLASSIFIERS = {
    "ghostnet_050_in1k": (2.6, 42, 66.2),
    "ghostnet_100_in1k": (5.2, 141, 73.9),
    "ghostnet_130_in1k": (7.3, 226, 75.7),
    "ghost_resnet50_in1k": (13, 2200, 75.0),
    "ghost_resnet50_s4_in1k": (6.5, 1200, 74.1),
    "vgg16_cifar10": (15, 313, 93.6),
    "ghost_vgg16_cifar10": (7.7, 158, 93.7),
    "resnet56_cifar10": (0.85, 125, 93.0),
    "ghost_resnet56_cifar10": (0.43, 63, 92.7),
}
#: Keys that make another network than the paper's. How it is initialised or
#: regularised does not.
NETWORK = re.compile(
    r"model\.(backbone|neck|rpn_head|roi_head|bbox_head|head)\."
    r"(?!init_cfg|dropout|label_smoothing)"
)
#: Keys that set the size of images.
SIZE = re.compile(
    r"(train|val)_dataloader\..*\.pipeline\.\d+\.(size|crop_size|scales?)\b"
)
NOT_SET = "not set"


def shipped_config(name: str) -> Config | None:
    """Load ghostdet's config of this name, or return None if it has no such config."""
    path = next(Path(CONFIGS).rglob(f"{name}.py"), None)
    return None if path is None else load_config(path)


def differences(
    one: dict[str, Any], other: dict[str, Any], free: Sequence[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Compare two configs, given as plain dicts.

    Tuples equal lists. Paths are compared relative to ``data_root``.

    Args:
        one: A config.
        other: Another.
        free: Dotted keys to leave out, with all below them.

    Returns:
        The two values of each dotted key that differs, ``'not set'`` for a missing one.
    """
    one, other = _flatten(one), _flatten(other)
    return {
        key: (one.get(key, NOT_SET), other.get(key, NOT_SET))
        for key in sorted({*one, *other})
        if one.get(key, NOT_SET) != other.get(key, NOT_SET)
        and not f"{key}.".startswith(tuple(f"{name}." for name in free))
    }


def applies(changed: Iterable[str]) -> bool:
    """Tell if the paper's figures apply to a config, by its changes to the shipped one.

    They do while the network, its classes and the size of images are the same.
    """
    return not any(NETWORK.match(key) or SIZE.match(key) for key in changed)


def _flatten(config: dict[str, Any]) -> dict[str, Any]:
    root, flat = os.path.join(config.get("data_root") or "", ""), {}
    for key, value in walk(config):
        inner = isinstance(value, (dict, list, tuple)) and value
        if not (inner or key.endswith("data_root")):
            value = list(value) if isinstance(value, tuple) else value
            flat[key] = value.removeprefix(root) if isinstance(value, str) else value
    return flat
