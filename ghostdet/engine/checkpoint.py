"""Checkpoints: opened without running what is in them, and loaded whole or not."""

from __future__ import annotations

import hashlib
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
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from ghostdet.errors import UserError

# By name, what the state of MMEngine's classes refers to.
_METHODS = {
    HistoryBuffer: ("min", "max", "current", "mean"),
    OneCycleParamScheduler: ("_annealing_cos", "_annealing_linear"),
}


def _getattr(owner: Any, name: str) -> Any:
    """Stands in for ``getattr``, of which a checkpoint gets ``_METHODS`` alone."""
    if not isinstance(owner, type) or name not in _METHODS.get(owner, ()):
        raise pickle.UnpicklingError(f"getattr({owner!r}, {name!r})")
    return getattr(owner, name)


# What an MMEngine 0.10 checkpoint holds beside tensors and Python's own containers.
SAFE_TYPES = [
    (_getattr, "builtins.getattr"),
    *_METHODS,
    np.ndarray,
    np.dtype,
    np._core.multiarray._reconstruct,
    np._core.multiarray.scalar,
    # Where NumPy 1 has them, and so checkpoints that were written with it.
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    *{type(np.dtype(code)) for code in np.typecodes["AllInteger"] + "efd?FD"},
]


# MMEngine's log shows the last word of these functions' names.
@CheckpointLoader.register_scheme(prefixes="", force=True)
def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Make MMEngine load and resume through :func:`read_checkpoint`."""
    return read_checkpoint(filename, map_location)


@CheckpointLoader.register_scheme(prefixes=("http://", "https://"), force=True)
def load_from_http(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Make MMEngine load addresses through :func:`read_checkpoint`."""
    return read_checkpoint(filename, map_location)


def read_checkpoint(filename: str, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint; MMEngine loads and resumes through this function.

    PyTorch's restricted unpickler is used with ``SAFE_TYPES`` allowed by name: torch
    2.6 and newer refuse MMEngine's checkpoints otherwise.

    Args:
        filename: Path of a ``.pth`` file, or the ``https`` address of one. What is
            downloaded stays in ``torch.hub``'s folder of checkpoints.
        map_location: As in ``torch.load``.

    Returns:
        What the file holds, less ``meta['config']``: MMEngine's ``Runner.resume`` would
        run that text as a Python config.

    Raises:
        UserError: If the file is missing, cannot be downloaded, is damaged, no
            checkpoint, or holds any other type.
    """
    if filename.startswith(("http://", "https://")):
        path = _download(filename)
    else:
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
    if isinstance(checkpoint.get("meta"), dict):
        checkpoint["meta"].pop("config", None)
    return checkpoint


def _download(url: str) -> Path:
    """Download a file once; its name holds the address, since many are best.pth."""
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{url.rpartition('/')[2]}"
    path = Path(torch.hub.get_dir(), "checkpoints", name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{url} cannot be downloaded ({error}); download it by other means and "
                "give its path"
            ) from error
    return path


def _refusal(path: Path, error: Exception) -> str:
    """Why a file is not opened."""
    # PyTorch's words among much advice, and those of _getattr.
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
        reason = "not in a form that PyTorch opens safely"
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


def weights_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of a checkpoint, or of a file that holds nothing else.

    Args:
        checkpoint: What :func:`read_checkpoint` returned.

    Returns:
        Tensors by name, without the ``module.`` that ``DataParallel`` puts before each.
    """
    state_dict = checkpoint.get("state_dict", checkpoint)
    return {re.sub(r"^module\.", "", name): v for name, v in state_dict.items()}


def check_state_dict(
    model: nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    source: str,
    allow: str | Sequence[str] = (),
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
    allow = (allow,) if isinstance(allow, str) else allow
    expected = model.state_dict()
    foreign = [n for n, v in state_dict.items() if not isinstance(v, torch.Tensor)]
    if foreign:
        raise UserError(
            f"{source} holds no weights alone: {foreign[0]} is a "
            f"{type(state_dict[foreign[0]]).__name__}; give a checkpoint of a training "
            "run, or what torch.save(model.state_dict()) wrote"
        )

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
        "use the config it was trained with (same widen_factor, classes and neck)"
    )
    differing = missing + surplus + misshapen
    if all("head" in name for name in differing):
        heads = sorted({name.rpartition(".")[0] for name in differing})
        lines[-1] += (
            "; to train other heads from it, name what may differ: "
            f"custom_hooks=[dict(type='CheckpointGuardHook', allow={heads})]"
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

    def __init__(self, allow: str | Sequence[str] = ()) -> None:
        self.allow = allow

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the checkpoint; raises ``UserError`` where it does not fit."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        check_state_dict(model, weights_of(checkpoint), "the checkpoint", self.allow)
