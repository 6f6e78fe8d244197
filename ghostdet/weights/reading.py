"""Reading files of weights without running what is in them."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from ghostdet.errors import UserError

from .source import fetch

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


def read_source(checkpoint: str | Path, map_location: Any = "cpu") -> tuple[Path, Any]:
    """Fetch a file of weights and read it.

    Args:
        checkpoint: As of :func:`~ghostdet.weights.fetch`.
        map_location: As in ``torch.load``.

    Returns:
        The path of the file, and what it holds.

    Raises:
        UserError: If it cannot be had or read. What was downloaded for nothing is
            removed again.
    """
    path = fetch(checkpoint)
    try:
        return path, read_file(path, map_location)
    except UserError:
        if str(checkpoint).startswith(("http://", "https://")):
            path.unlink()
        raise


def read_file(path: Path, map_location: Any = "cpu") -> Any:
    """Read what ``torch.save``, safetensors or PaddlePaddle wrote.

    A pickle is opened by a restricted unpickler that knows ``SAFE_TYPES`` and tensors:
    torch 2.6 and newer refuse MMEngine's checkpoints otherwise.

    Args:
        path: The file; ``.safetensors`` and ``.pdparams`` are known by their suffix.
        map_location: As in ``torch.load``.

    Returns:
        What it holds. Of safetensors, ``state_dict`` and the file's ``metadata``.

    Raises:
        UserError: If the file is damaged, of another kind, or holds any other type.
    """
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
            tensors = safetensors.torch.load_file(path, str(map_location or "cpu"))
            return {"state_dict": tensors, "metadata": metadata}
        if path.suffix == ".pdparams" and not zipfile.is_zipfile(path):
            with open(path, "rb") as file:
                return _ArrayUnpickler(file).load()
        with torch.serialization.safe_globals(SAFE_TYPES):
            return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # an unpickler fails in any way on a file of any kind
        raise UserError(_refusal(path, error)) from None


class _ArrayUnpickler(pickle.Unpickler):
    """For dictionaries of NumPy arrays, as PaddlePaddle pickles them."""

    _ALLOWED = {
        ("collections", "OrderedDict"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        *(
            (f"numpy.{core}.multiarray", name)
            for core in ("core", "_core")
            for name in ("_reconstruct", "scalar")
        ),
        ("_codecs", "encode"),  # bytes, in protocol 2
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


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
