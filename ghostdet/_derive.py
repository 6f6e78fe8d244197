"""Configs in which classes, data, image size and length are one value each."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from ghostdet.errors import ConfigError
from ghostdet.utils.components import iter_datasets

#: Values at the top of a config, from which :func:`derive` sets others.
VALUES = (
    *("data_root", "images", "classes", "image_size", "max_iters"),
    *("pretrained", "anchor_scale"),
)
DERIVED = "derived_from"  # the key of a config that lists its values
_SIZES = ("scale", "size", "crop_size")  # in transforms, as (width, height)


def derive(config: dict[str, Any]) -> None:
    """Set what follows from a config's few values: the last line of its file.

    ::

        _base_ = __import__("ghostdet").CONFIGS + "/own/light_s.py"

        data_root = "pets/"  # with train.json and val.json
        images = "photos/pets/"  # where their images are
        classes = ("cat", "dog")
        image_size = (320, 256)
        max_iters = 1000

        __import__("ghostdet").derive(globals())

    ``data_root`` and ``images`` move the datasets and the evaluators' files.
    ``classes``, names or a file of lines, become all ``metainfo`` and each
    ``num_classes``. ``image_size``, in px, ``(width, height)`` or one number, scales
    the sizes in the pipelines, and ``max_iters`` the schedules and the intervals of
    evaluation and checkpoints. ``pretrained = False`` starts from random weights.
    ``anchor_scale`` is the side of the smallest anchors, in strides. A value that is
    missing leaves the base's. ``--cfg-options`` on a value does the same anew.

    Args:
        config: ``globals()`` of the file, which are changed.
    """
    base = Config(copy.deepcopy(dict(config["_base_"])))
    cfg = copy.deepcopy(base)
    own = {k: v for k, v in config.items() if k in cfg and not k.startswith("_")}
    cfg.merge_from_dict(copy.deepcopy(own))
    values = {key: config[key] for key in VALUES if key in config}
    apply_values(cfg, base, values)
    for key, value in cfg.to_dict().items():
        if isinstance(value, (dict, list)) and value != base.to_dict().get(key):
            kept = {"_delete_": True} if isinstance(value, dict) else {}
            config[key] = {**value, **kept} if kept else value
    config[DERIVED] = list(values)


def apply_values(cfg: Config, before: Config, values: dict[str, Any]) -> None:
    """Set the values of a config, and what follows from them.

    Args:
        cfg: The config, which is changed.
        before: The config with the values that its parts have now.
        values: The new ones, by name.

    Raises:
        ConfigError: If a value is of another kind than expected.
    """
    values = dict(values)
    cfg.merge_from_dict(values)
    parts = [cfg.get(f"{part}_dataloader") for part in ("train", "val", "test")]
    datasets = [d for part in parts if part for _, d in iter_datasets(part["dataset"])]
    if "data_root" in values or "images" in values:
        _move(cfg, datasets, cfg.get("data_root"), cfg.get("images"))
    if "classes" in values:
        names = _names(values["classes"])
        for dataset in datasets:
            dataset.metainfo = dict(dataset.get("metainfo") or {}, classes=names)
        for node in _nodes(cfg.model):
            if "num_classes" in node:
                node["num_classes"] = len(names)
    if "image_size" in values:
        old, new = _pair(before.image_size), _pair(values["image_size"])
        for node in (node for dataset in datasets for node in _nodes(dataset)):
            for key in _SIZES:
                if isinstance(node.get(key), (tuple, list)):
                    pairs = zip(node[key], new, old)
                    node[key] = tuple(round(side * n / o) for side, n, o in pairs)
    if "max_iters" in values:
        _set_length(cfg, before.train_cfg.max_iters, values["max_iters"])
    if values.get("pretrained") is False:
        cfg.model.backbone.init_cfg = None
        cfg.optim_wrapper.paramwise_cfg.pop("custom_keys", None)
    if "anchor_scale" in values:
        for node in _nodes(cfg.model):
            if "octave_base_scale" in node:
                node["octave_base_scale"] = values["anchor_scale"]
            elif node.get("type") == "AnchorGenerator":
                node["scales"] = [values["anchor_scale"]]


def _names(classes: Any) -> tuple[str, ...]:
    """Return the names of the classes, or those in a file of lines."""
    try:
        if isinstance(classes, str):
            classes = Path(classes).read_text("utf-8").splitlines()
        if classes and all(isinstance(name, str) for name in classes):
            return tuple(classes)
    except (OSError, TypeError):
        pass
    raise ConfigError(
        f"classes is {classes!r}, expected names, ('cat', 'dog'), or a file of them"
    )


def _pair(size: Any) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else size
    if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and min(pair) > 0):
        raise ConfigError(f"image_size is {size!r}, expected px: (320, 256), or 320")
    return tuple(pair)


def _move(cfg: Config, datasets: list, root: str | None, images: str | None) -> None:
    for dataset in datasets:
        dataset.data_root = root or dataset.get("data_root")
        if images:
            path = images if os.path.isabs(images) else os.path.relpath(images, root)
            dataset.data_prefix = dict(img=os.path.join(path, ""))
    for part in ("val", "test"):
        if evaluator := cfg.get(f"{part}_evaluator"):
            dataset = cfg[f"{part}_dataloader"].dataset
            evaluator.ann_file = os.path.join(dataset.data_root, dataset.ann_file)


def _set_length(cfg: Config, old: int, new: int) -> None:
    """Scale all that counts iterations."""
    if not isinstance(new, int) or new < 2:
        raise ConfigError(f"max_iters is {new!r}, expected 2 iterations or more")

    def scaled(value: int) -> int:
        # A schedule that ends within the training leaves room for the next.
        most = new if value >= old else new - 1
        return min(max(round(value * new / old), 1), most) if value else 0

    def scale(node: ConfigDict, *keys: str) -> None:
        for key in keys:
            if isinstance(node.get(key), int):
                node[key] = scaled(node[key])
            elif isinstance(node.get(key), list):
                node[key] = list(map(scaled, node[key]))

    scale(cfg.train_cfg, "max_iters", "val_interval")
    scale(cfg.default_hooks.checkpoint, "interval")
    for schedule in cfg.param_scheduler:
        if not schedule.get("by_epoch", True):
            scale(schedule, "begin", "end", "T_max", "milestones")


def _nodes(node: Any) -> Iterator[dict]:
    """Iterate over the dictionaries in a part of a config."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, (dict, list, tuple)):
        for value in list(node.values()) if isinstance(node, dict) else node:
            yield from _nodes(value)
