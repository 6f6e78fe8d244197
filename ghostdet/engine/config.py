"""Configs from the command line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ghostdet.datasets import use_readable_images
from ghostdet.errors import UserError

COCO_LAYOUT = (
    "annotations/instances_train2017.json, annotations/instances_val2017.json, "
    "train2017/, val2017/"
)


def load_config(
    path: str | Path,
    work_dir: str | Path | None = None,
    data_root: str | Path | None = None,
    cfg_options: dict[str, Any] | None = None,
    launcher: str = "none",
) -> Config:
    """Read a config and apply what the command line overrides.

    Args:
        path: A config file.
        work_dir: Where the run writes. Defaults to the config's own ``work_dir``, then
            to ``work_dirs/`` and the config's name, as in MMDetection.
        data_root: Folder with the data set, in place of the config's own.
        cfg_options: Dotted keys and values to merge, as of MMEngine's ``DictAction``.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Returns:
        The config, ready for MMEngine's Runner; its ``work_dir`` exists, and images
        that cannot be read are named (:func:`~ghostdet.datasets.use_readable_images`).

    Raises:
        UserError: If the file is missing or not a config, or ``work_dir`` cannot be
            written.
    """
    if not Path(path).is_file():
        raise UserError(
            f"no config at {str(path)!r}; give the path of a config file, such as "
            "configs/retinanet_ghostnet_fpn.py"
        )
    try:
        cfg = Config.fromfile(path)
    except (SyntaxError, FileNotFoundError, KeyError) as error:
        raise UserError(f"{path} cannot be read as a config: {error}") from error
    use_readable_images()
    cfg.launcher = launcher
    if data_root is not None:
        _set_data_root(cfg, str(data_root))
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    if work_dir is not None:
        cfg.work_dir = str(work_dir)
    elif cfg.get("work_dir") is None:
        cfg.work_dir = os.path.join("work_dirs", Path(path).stem)
    check_writable(cfg.work_dir)
    return cfg


def check_writable(folder: str | Path) -> None:
    """Make a folder and see that files can be written in it.

    Raises:
        UserError: If they cannot.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"{str(folder)!r} cannot be written ({error.strerror}); give another "
            "folder with --work-dir"
        ) from error


def _set_data_root(cfg: Config, data_root: str) -> None:
    """Point all data sets, and annotation files of evaluators, to another folder."""
    if not os.path.isdir(data_root):
        raise UserError(
            f"--data-root {data_root!r} is not a folder; for COCO it holds "
            f"{COCO_LAYOUT}"
        )
    data_root = os.path.join(data_root, "")
    old_roots = {node["data_root"] for node in _dicts(cfg) if "data_root" in node}
    for node in _dicts(cfg):
        for key, value in node.items():
            if key == "data_root":
                node[key] = data_root
            elif key == "ann_file" and isinstance(value, str):
                for old in old_roots:
                    if old and value.startswith(old):
                        node[key] = data_root + value[len(old) :].lstrip("/")


def _dicts(node: Any) -> Iterator[dict]:
    if isinstance(node, (dict, Config)):
        yield node
        for value in list(node.values()):
            yield from _dicts(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _dicts(value)
