"""Find the components that a config names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config

from ghostdet.errors import ConfigError, UserError

# Transforms that a test pipeline may hold besides one Resize, and the only values of
# their options that the runtime knows.
LOADING = ("LoadImageFromFile", "LoadReadableImage", "LoadAnnotations", "PackDetInputs")
OPTIONS = dict(
    color_type=("color",),
    to_float32=(False,),
    imdecode_backend=("cv2",),
    max_value=(0,),
    scale_factor=(None, 1, (1, 1)),
    interpolation=("bilinear",),
    backend=("cv2",),
)


def type_name(kind: str | type | None) -> str:
    """Give the name of a component, without its scope, from its ``type``.

    Example:
        >>> type_name('mmengine.CheckpointHook'), type_name(dict)
        ('CheckpointHook', 'dict')
    """
    return getattr(kind, "__name__", str(kind)).rpartition(".")[2]


def is_classifier(config: Mapping[str, Any]) -> bool:
    """Tell whether a config has a classifier, by the type of its model."""
    return type_name(config["model"].get("type")) == "ImageClassifier"


def build_dataset(cfg: Mapping[str, Any]) -> Any:
    """Build a dataset without loading it, if its class can do that."""
    try:
        return DATASETS.build({**cfg, "lazy_init": True})
    except TypeError as error:
        if "lazy_init" not in str(error):
            raise
        return DATASETS.build(cfg)


def first_metainfo(metainfo: Any) -> dict[str, Any]:
    """Return a dataset's metainfo; a ConcatDataset of different ones has a list.

    Example:
        >>> first_metainfo([dict(classes=("cat",)), {}]), first_metainfo(None)
        ({'classes': ('cat',)}, {})
    """
    return dict((metainfo[0] if isinstance(metainfo, list) else metainfo) or {})


def walk(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over the dotted keys and values of a config, the outer ones first.

    Example:
        >>> list(walk(dict(a=[1, dict(b=2)])))
        [('a', [1, {'b': 2}]), ('a.0', 1), ('a.1', {'b': 2}), ('a.1.b', 2)]
    """
    items = node.items() if isinstance(node, dict) else ()
    for key, value in enumerate(node) if isinstance(node, (list, tuple)) else items:
        yield f"{prefix}{key}", value
        yield from walk(value, f"{prefix}{key}.")


def iter_datasets(cfg: dict, key: str = "dataset") -> Iterator[tuple[str, dict]]:
    """Iterate over the datasets in a config, inside their wrappers.

    Args:
        cfg: Configuration of a dataset or of a wrapper.
        key: Its place in the config.

    Yields:
        The dotted key and the configuration of each.

    Raises:
        ConfigError: If one is not a dictionary.
    """
    if not isinstance(cfg, dict):
        raise ConfigError(f"{key} is {cfg!r}, expected dict(...)")
    if "datasets" in cfg:
        for i, part in enumerate(cfg["datasets"]):
            yield from iter_datasets(part, f"{key}.datasets.{i}")
    elif "dataset" in cfg:
        yield from iter_datasets(cfg["dataset"], f"{key}.dataset")
    else:
        yield key, cfg


def resize_of(cfg: Config) -> dict[str, Any] | None:
    """Return ``scale`` (width, height) and ``keep_ratio`` of the test pipeline.

    None if images keep their size.

    Raises:
        UserError: If the runtime cannot do a step of the pipeline.
    """
    resize = None
    for step in get_test_pipeline_cfg(cfg):
        name = type_name(step.type)
        is_resize = name == "Resize" and resize is None
        if not (is_resize or name in LOADING) or any(
            step.get(key, values[0]) not in values for key, values in OPTIONS.items()
        ):
            raise UserError(
                f"the test pipeline of {cfg.filename} has {dict(step)}, which an "
                "exported detector cannot do; use one Resize(scale=(width, height), "
                f"keep_ratio=...) and, without options, {', '.join(LOADING)}"
            )
        if is_resize and "scale" in step:
            scale = (step.scale,) * 2 if np.isscalar(step.scale) else step.scale
            resize = dict(scale=[*scale], keep_ratio=step.get("keep_ratio", False))
    return resize
