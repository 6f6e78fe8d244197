"""Our configs as they are shipped, and what other configs have in common with them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ghostdet import CONFIGS
from ghostdet.config import load_config

#: What a start from a checkpoint sets besides: the weights are all in there.
WEIGHTS = ("model.backbone.init_cfg",)
#: What a model is trained by and not made of.
UNCOUNTED = (*WEIGHTS, "model.head.dropout", "model.head.label_smoothing")
#: What the paper's figures are of, with the classes in the heads.
NETWORK = ("backbone", "neck", "rpn_head", "roi_head", "bbox_head", "head")
#: The size of images, in the pipelines.
SIZE = re.compile(r"\.pipeline\.\d+\.(size|crop_size|scales?)(\.|$)")


def shipped_config(name: str) -> Config | None:
    """Our config of a name, which is that of its file without ``.py``."""
    path = next(Path(CONFIGS).rglob(f"{name}.py"), None)
    return None if path is None else load_config(path)


def flatten(config: dict[str, Any], free: Sequence[str] = ()) -> dict[str, Any]:
    """Flatten a config to dotted keys, without those that are free.

    Paths in the data set are written from its root. Tuples become lists, as which the
    command line gives them.
    """
    flat: dict[str, Any] = {}
    root = os.path.join(config.get("data_root") or "", "")

    def add(key: str, node: Any) -> None:
        if key in free or key.endswith(".data_root"):
            return
        if isinstance(node, (list, tuple)):
            node = list(node) and dict(enumerate(node))
        if isinstance(node, dict) and node:
            for name, value in node.items():
                add(f"{key}.{name}", value)
        else:
            moved = isinstance(node, str) and root and node.startswith(root)
            flat[key] = node[len(root) :] if moved else node

    for name, value in config.items():
        add(str(name), value)
    return flat


def same_parts(
    one: dict[str, Any], other: dict[str, Any], names: Iterable[str]
) -> bool:
    """Whether parts of two models are built alike, however they are trained."""
    parts = [
        {"model": {name: config["model"].get(name) for name in names}}
        for config in (one, other)
    ]
    return flatten(parts[0], UNCOUNTED) == flatten(parts[1], UNCOUNTED)


def as_in_the_paper(shipped: dict[str, Any], own: dict[str, Any]) -> bool:
    """Whether what the paper says of a config of ours can be said of another.

    Args:
        shipped: Our config as a dict.
        own: The other, of which nothing is run.

    Returns:
        Whether network, classes and the size of images are the same.
    """
    return same_parts(shipped, own, NETWORK) and _sizes(shipped) == _sizes(own)


def _sizes(config: dict[str, Any]) -> list[Any]:
    """The sizes to which a config's pipelines bring images, in order."""
    loaders = {part: config.get(f"{part}_dataloader") for part in ("train", "val")}
    return [size for key, size in flatten(loaders).items() if SIZE.search(key)]
