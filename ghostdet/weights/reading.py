"""Reading files of weights without running what is in them."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from ghostdet.errors import UserError

from .source import ADDRESS, fetch

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


class _DType:
    """Stands in for ``numpy.dtype``, whose own state can name any memory an object."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?[biufc?]\d*", code):
            raise pickle.UnpicklingError(f"numpy.dtype({code!r})")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands in for ``numpy.ndarray`` until the file is read."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, content = state
        if isinstance(content, str):  # of Python 2
            content = content.encode("latin1")
        array = np.frombuffer(bytearray(content), dtype.value)
        self.value = array.reshape(shape, order="F" if is_fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: _DType, content: bytes) -> np.generic:
    return np.frombuffer(content, dtype.value, count=1)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Stands in for ``_codecs.encode``, by which protocol 2 writes bytes."""
    return text.encode({"latin1": "latin1"}[encoding])


def _no_bytes() -> bytes:
    """Stands in for ``bytes``, by which protocol 2 writes none."""
    return b""


# What arrays are pickled with, by NumPy 1 (core) and 2 (_core).
_NUMPY = {
    "numpy.dtype": _DType,
    "numpy.ndarray": _Array,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray.scalar": _scalar,
}
# What checkpoints hold beside tensors and Python's own containers: MMEngine's, and the
# options of timm's training.
SAFE_TYPES = [
    (_getattr, "builtins.getattr"),
    (_no_bytes, "builtins.bytes"),
    *_METHODS,
    argparse.Namespace,
    *((value, name) for name, value in _NUMPY.items()),
]


def read_source(checkpoint: str | Path) -> tuple[Path, Any]:
    """Fetch a file of weights and read it.

    Args:
        checkpoint: As of :func:`~ghostdet.weights.fetch`.

    Returns:
        The path of the file, and what it holds.

    Raises:
        UserError: If it cannot be had or read. A download that cannot be read is
            removed again.
    """
    path = fetch(checkpoint)
    try:
        return path, read_file(path)
    except UserError:
        if str(checkpoint).startswith(ADDRESS):
            path.unlink(missing_ok=True)
        raise


def read_file(path: Path) -> Any:
    """Read what ``torch.save``, safetensors or PaddlePaddle wrote, to the CPU.

    Pickles are opened by restricted unpicklers that know tensors and ``SAFE_TYPES``, or
    arrays alone: torch 2.6 and newer refuse MMEngine's checkpoints otherwise. Arrays
    are rebuilt from their bytes and plain numbers' types.

    Args:
        path: The file; ``.safetensors`` and ``.pdparams`` are known by their suffix.

    Returns:
        What it holds. Of safetensors, ``state_dict`` and the file's ``metadata``.

    Raises:
        UserError: If the file is damaged, of another kind, or holds any other type.
    """
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
            return {
                "state_dict": safetensors.torch.load_file(path),
                "metadata": metadata,
            }
        if path.suffix == ".pdparams" and not zipfile.is_zipfile(path):
            with open(path, "rb") as file:
                return _plain(_ArrayUnpickler(file, encoding="latin1").load())
        with torch.serialization.safe_globals(SAFE_TYPES):
            return _plain(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # an unpickler fails in any way on a file of any kind
        raise UserError(_refusal(path, error)) from None


class _ArrayUnpickler(pickle.Unpickler):
    """For dictionaries of NumPy arrays, as PaddlePaddle pickles them."""

    _KNOWN = {
        **_NUMPY,
        "collections.OrderedDict": OrderedDict,
        "_codecs.encode": _encode,
        "__builtin__.bytes": _no_bytes,
        "builtins.bytes": _no_bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self._KNOWN:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return self._KNOWN[f"{module}.{name}"]


def _plain(node: Any) -> Any:
    """Put arrays in the place of what stood in for them."""
    if isinstance(node, (_Array, _DType)):
        return node.value
    if isinstance(node, dict):
        for key, value in node.items():
            node[key] = _plain(value)
    elif isinstance(node, list):
        node[:] = map(_plain, node)
    elif type(node) is tuple:
        return tuple(map(_plain, node))
    elif isinstance(node, (HistoryBuffer, argparse.Namespace)):
        _plain(vars(node))
    return node


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
