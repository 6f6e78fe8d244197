"""Models of a config, with trained weights."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn

from ghostdet.checks.classes import check_num_classes
from ghostdet.config import config_mistakes, load_config, require
from ghostdet.engine.resume import find_latest_valid_checkpoint
from ghostdet.errors import UserError
from ghostdet.utils.components import first_metainfo
from ghostdet.weights import check_state_dict, get_state_dict
from ghostdet.weights.checkpoint import read_checkpoint
from ghostdet.weights.published import DESCRIPTION, WEIGHTS, check_weights, meta_beside


def build_model(cfg: Config) -> nn.Module:
    """Build a config's model, with random weights.

    Raises:
        UserError: If the config cannot be built.
    """
    init_default_scope(cfg.get("default_scope", "mmdet"))
    with config_mistakes(cfg):
        return revert_sync_batchnorm(MODELS.build(cfg.model))


def load_model(config: str | Path | Config, checkpoint: str | Path) -> nn.Module:
    """Build a detector or classifier and fill it with trained weights, all of them.

    Args:
        config: The config it was trained with, or for published weights their
            ``.json`` file.
        checkpoint: Its checkpoint.

    Returns:
        The model in evaluation mode, on the GPU if there is one, with ``cfg`` and
        ``dataset_meta``, which has ``classes`` where the files name them.

    Raises:
        UserError: If a file is missing or the weights or classes do not fit.
    """
    cfg = config if isinstance(config, Config) else load_config(config)
    require(cfg, "model")
    model = build_model(cfg)
    check_weights(cfg, checkpoint)
    loaded = read_checkpoint(str(checkpoint))
    state_dict = get_state_dict(loaded)
    check_state_dict(model, state_dict, str(checkpoint))
    model.load_state_dict(state_dict, strict=False)  # checked: fits
    model.dataset_meta = dataset_meta_of(cfg, checkpoint, loaded)
    if "language_model" not in cfg.model:  # whose classes are words
        check_num_classes(model, model.dataset_meta.get("classes"))
    model.cfg = cfg
    return model.to(get_device()).eval()


def dataset_meta_of(
    cfg: Config, checkpoint: str | Path, loaded: dict[str, Any]
) -> dict[str, Any]:
    """Return the metadata, with ``classes``, of a model's training dataset."""
    own = first_metainfo((loaded.get("meta") or {}).get("dataset_meta"))
    return dict(own or cfg.get("dataset_meta") or meta_beside(checkpoint))


def latest_checkpoint(cfg: Config) -> str:
    """Find the last checkpoint of a config's work directory, and print its path.

    For a description of published weights, return the weights beside it.

    Raises:
        UserError: If no checkpoint there can be read.
    """
    if Path(cfg.filename).suffix == DESCRIPTION:
        return str(Path(cfg.filename).with_suffix(WEIGHTS))
    found = None
    with suppress(UserError):  # about resuming
        found = find_latest_valid_checkpoint(cfg.work_dir)
    if found is None:
        raise UserError(
            f"no checkpoint in {cfg.work_dir} can be read; give the path of one, or "
            f"train first: ghostdet train {cfg.filename}"
        )
    print(f"checkpoint: {found}")
    return found
