"""Checkpoints: opened without running what is in them, and loaded whole or not."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from ghostdet.errors import UserError


def _history_method(owner: Any, name: str) -> Any:
    """Stands in for ``getattr``, which HistoryBuffer's state needs and nothing else."""
    if owner is not HistoryBuffer or name not in ("min", "max", "current", "mean"):
        raise pickle.UnpicklingError(f"getattr({owner!r}, {name!r})")
    return getattr(owner, name)


# What an MMEngine 0.10 checkpoint holds beside tensors and Python's own containers.
SAFE_TYPES = [
    (_history_method, "builtins.getattr"),
    HistoryBuffer,
    np.ndarray,
    np.dtype,
    np._core.multiarray._reconstruct,
    np._core.multiarray.scalar,
    # Where NumPy 1 has them, and so checkpoints that were written with it.
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    type(np.dtype(np.int64)),
    type(np.dtype(np.bool_)),
]


@CheckpointLoader.register_scheme(prefixes="", force=True)
def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Make MMEngine load and resume safely; its log shows the last word of the name."""
    return read_checkpoint(filename, map_location)


def read_checkpoint(filename: str, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a local checkpoint; MMEngine loads and resumes through this function.

    PyTorch's restricted unpickler is used with ``SAFE_TYPES`` allowed by name: torch
    2.6 and newer refuse MMEngine's checkpoints otherwise.

    Args:
        filename: Path of a ``.pth`` file.
        map_location: As in ``torch.load``.

    Returns:
        What the file holds, less ``meta['config']``: MMEngine's ``Runner.resume`` would
        run that text as a Python config.

    Raises:
        UserError: If the file is missing, damaged, no checkpoint, or holds any other
            type.
    """
    path = Path(filename)
    if not path.is_file():
        raise UserError(
            f"no checkpoint at {filename!r}; give the path of a .pth file, such as "
            "work_dirs/CONFIG/epoch_12.pth"
        )
    try:
        with torch.serialization.safe_globals(SAFE_TYPES):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # the unpickler fails in any way on a file of any kind
        raise UserError(_refusal(path, error)) from None
    if not isinstance(checkpoint, dict) or not isinstance(
        checkpoint.get("state_dict", {}), dict
    ):
        raise UserError(
            f"{path} holds no state_dict (found {type(checkpoint).__name__}); give a "
            "checkpoint of a training run, or what torch.save(model.state_dict()) wrote"
        )
    _drop_config(checkpoint)
    return checkpoint


def _refusal(path: Path, error: Exception) -> str:
    """Why a file is not opened."""
    # PyTorch's words among much advice, and those of _history_method.
    first = re.search(r"GLOBAL [\w.]+|getattr\(<.*\)", str(error))
    unsafe = ", ".join(_unsafe_types(path)) or (
        first.group().removeprefix("GLOBAL ") if first else ""
    )
    if unsafe:
        return (
            f"{path} is not opened, since it holds more than weights: {unsafe}. "
            "Loading it could run code of whoever made it; if that is you, save its "
            "state_dict alone with torch.save and load that"
        )
    if isinstance(error, (RuntimeError, OSError)):
        reason = str(error).split(". ")[0]
    else:
        reason = "torch.save did not write it"
    return (
        f"{path} cannot be read as a checkpoint ({reason}); it is damaged or of "
        "another kind: take an earlier one, or copy it again"
    )


def _unsafe_types(path: Path) -> list[str]:
    with torch.serialization.safe_globals(SAFE_TYPES):
        try:
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        except Exception:  # only adds names to a message; not every file has them
            return []


def _drop_config(checkpoint: dict[str, Any]) -> None:
    meta = checkpoint.get("meta")
    if isinstance(meta, dict):
        meta.pop("config", None)


def check_state_dict(
    model: nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    source: str,
    allow: Sequence[str] = (),
) -> None:
    """Check that a state dict fits a model: same names, same shapes.

    Args:
        model: The model to be filled.
        state_dict: The weights.
        source: Where they are from, for the message.
        allow: Regular expressions of names that may be missing, surplus or misshapen.

    Raises:
        UserError: If anything else is missing, surplus or misshapen; lists it.
    """
    expected = model.state_dict()

    def counted(names: Iterable[str]) -> list[str]:
        return sorted(
            name
            for name in names
            if not name.endswith("num_batches_tracked")
            and not any(re.match(pattern, name) for pattern in allow)
        )

    missing = counted(expected.keys() - state_dict.keys())
    surplus = counted(state_dict.keys() - expected.keys())
    misshapen = counted(
        name
        for name in expected.keys() & state_dict.keys()
        if expected[name].shape != state_dict[name].shape
    )
    if not (missing or surplus or misshapen):
        return
    shapes = [
        f"{name} is {tuple(state_dict[name].shape)}, not {tuple(expected[name].shape)}"
        for name in misshapen
    ]
    lines = [f"the weights of {source} do not fit this model"]
    for what, names in (
        ("missing", missing),
        ("surplus", surplus),
        ("misshapen", shapes),
    ):
        if names:
            more = f", and {len(names) - 5} more" if len(names) > 5 else ""
            lines.append(f"  {len(names)} {what}: " + ", ".join(names[:5]) + more)
    lines.append(
        "use the config it was trained with (same widen_factor, classes and neck); to "
        "start another head from it, name what may differ: "
        "custom_hooks=[dict(type='CheckpointGuardHook', allow=['bbox_head'])]"
    )
    raise UserError("\n".join(lines))


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

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self.allow = (allow,) if isinstance(allow, str) else tuple(allow)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the checkpoint; raises ``UserError`` where it does not fit."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        state_dict = checkpoint.get("state_dict", checkpoint)
        state_dict = {re.sub("^module.", "", k): v for k, v in state_dict.items()}
        check_state_dict(model, state_dict, "the checkpoint", self.allow)
        _drop_config(checkpoint)  # one that came by URL, past read_checkpoint
