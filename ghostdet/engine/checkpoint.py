"""Checkpoints: opened without running what is in them, and loaded whole or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from ghostdet.errors import UserError
from ghostdet.weights import (
    check_state_dict,
    drop_configs,
    read_source,
    weights_of,
)
from ghostdet.weights.source import REMOTE


# MMEngine's log shows the last word of these functions' names.
@CheckpointLoader.register_scheme(prefixes="", force=True)
def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Make MMEngine load and resume through :func:`read_checkpoint`, to the CPU."""
    return read_checkpoint(filename)


@CheckpointLoader.register_scheme(prefixes=REMOTE, force=True)
def load_from_remote(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Make MMEngine load what is elsewhere through :func:`read_checkpoint`."""
    return read_checkpoint(filename)


def read_checkpoint(filename: str) -> dict[str, Any]:
    """Read a checkpoint; MMEngine loads and resumes through this function.

    Args:
        filename: Path of a ``.pth`` or ``.safetensors`` file, or what
            :func:`ghostdet.weights.fetch` takes.

    Returns:
        What the file holds, on the CPU, less the configs that MMEngine would run, see
        :func:`ghostdet.weights.drop_configs`.

    Raises:
        UserError: If the file is missing, cannot be downloaded, is damaged, no
            checkpoint, or holds types that are not known to be safe.
    """
    if not filename.startswith(REMOTE) and not Path(filename).expanduser().is_file():
        raise UserError(
            f"no checkpoint at {filename!r}; give the path of a .pth file, such as "
            "work_dirs/CONFIG/epoch_12.pth"
        )
    path, checkpoint = read_source(filename)
    if not isinstance(checkpoint, dict) or not all(
        isinstance(checkpoint.get(key, {}), dict) for key in ("state_dict", "meta")
    ):
        raise UserError(
            f"{path} holds no state_dict (found {type(checkpoint).__name__}); give a "
            "checkpoint of a training run, or what torch.save(model.state_dict()) wrote"
        )
    drop_configs(checkpoint)
    return checkpoint


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Refuses a checkpoint that does not fit the model.

    MMEngine's Runner loads with ``strict=False``: what does not fit is skipped, and a
    network of another width stays random with a warning.

    Args:
        allow: Regular expressions, matched at the start of a parameter's name, of what
            may be missing, surplus or misshapen, such as ``['bbox_head']`` to start
            another number of classes from a trained detector.
    """

    priority = "ABOVE_NORMAL"  # before EMAHook, which loads what it is given

    def __init__(self, allow: str | Sequence[str] = ()) -> None:
        self.allow = allow

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the checkpoint; raises ``UserError`` where it does not fit."""
        if "state_dict" not in checkpoint:  # weights alone, which EMAHook does not know
            weights = dict(checkpoint)
            checkpoint.clear()
            checkpoint["state_dict"] = weights
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        check_state_dict(model, weights_of(checkpoint), "the checkpoint", self.allow)
