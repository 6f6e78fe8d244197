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
# What MMEngine reads the rank from, and what sets it.
LAUNCHERS = {
    "pytorch": ("RANK", "torchrun"),
    "slurm": ("SLURM_PROCID", "srun"),
    "mpi": ("OMPI_COMM_WORLD_RANK", "mpirun"),
}


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
        The config, ready for MMEngine's Runner. Images that cannot be read will be
        named (:func:`~ghostdet.datasets.use_readable_images`).

    Raises:
        UserError: If the file is missing or not a config, an option does not fit it,
            or ``launcher`` did not start this process.
    """
    if not Path(path).is_file():
        raise UserError(
            f"no config at {str(path)!r}; give the path of a config file, such as "
            "configs/retinanet_ghostnet_fpn.py"
        )
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is Python, and imports more
        raise UserError(
            f"{path} cannot be read as a config: {type(error).__name__}: {error}"
        ) from error
    variable, starter = LAUNCHERS.get(launcher, ("", ""))
    if variable and variable not in os.environ:
        raise UserError(
            f"--launcher {launcher} is for processes that {starter} starts, and this "
            "one is not; leave it out to run on one device"
        )
    use_readable_images()
    cfg.launcher = launcher
    if data_root is not None:
        _set_data_root(cfg, str(data_root))
    if cfg_options:
        try:
            cfg.merge_from_dict(cfg_options)
        except (KeyError, TypeError) as error:
            # The message ends with the whole part of the config.
            raise UserError(
                f"--cfg-options does not fit {path}: {str(error)[:200]}"
            ) from error
    if work_dir is not None:
        cfg.work_dir = str(work_dir)
    elif cfg.get("work_dir") is None:
        cfg.work_dir = os.path.join("work_dirs", Path(path).stem)
    return cfg


def require(cfg: Config, *keys: str) -> None:
    """See that a config has what a tool needs.

    Raises:
        UserError: If it lacks one of the keys, or that is None.
    """
    missing = [key for key in keys if cfg.get(key) is None]
    if missing:
        raise UserError(
            f"{cfg.filename} has no {', '.join(missing)}; add it as the configs in "
            "configs/_base_ have it, or start from one of those"
        )


def check_writable(folder: str | Path, option: str = "--work-dir") -> None:
    """Make a folder and see that files can be written in it.

    Args:
        folder: Its path.
        option: The option that names another, for the message.

    Raises:
        UserError: If they cannot.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"{str(folder)!r} cannot be written ({error.strerror}); give another "
            f"folder with {option}"
        ) from error


def _set_data_root(cfg: Config, data_root: str) -> None:
    """Point all data sets, and annotation files of evaluators, to another folder."""
    if not os.path.isdir(data_root):
        raise UserError(
            f"--data-root {data_root!r} is not a folder; for COCO it holds "
            f"{COCO_LAYOUT}"
        )
    data_root = os.path.join(data_root, "")
    nodes = list(_dicts(cfg))
    roots = {os.path.join(n["data_root"], "") for n in nodes if n.get("data_root")}
    top = min(roots, key=len, default="")  # of nested ones
    others = sorted(root for root in roots if not root.startswith(top))
    if others:
        raise UserError(
            f"--data-root is for one folder, and {cfg.filename} has several: "
            f"{', '.join([top, *others])}; set them with --cfg-options"
        )
    for node in nodes:
        if "data_root" in node:
            inner = os.path.join(node["data_root"] or top, "")
            node["data_root"] = data_root + inner[len(top) :]
        file = node.get("ann_file")
        if top and isinstance(file, str) and file.startswith(top):
            node["ann_file"] = data_root + file[len(top) :].lstrip("/")


def _dicts(node: Any) -> Iterator[dict]:
    if isinstance(node, (dict, Config)):
        yield node
        for value in list(node.values()):
            yield from _dicts(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _dicts(value)
