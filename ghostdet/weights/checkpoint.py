"""Read files of weights without running code from them."""

from __future__ import annotations

import argparse
import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner.checkpoint import CheckpointLoader

from ghostdet.errors import UserError
from ghostdet.weights.source import ADDRESS, REMOTE, fetch

_ZIP = b"PK\x03\x04"  # torch.load tells the formats of torch.save apart by it
# An archive that unpacks to more than this many times its size is refused.
_MAX_RATIO = 10


class _DType:
    """Stand-in for ``numpy.dtype``, limited to numbers.

    NumPy's own ``__setstate__`` can turn a number type into one that holds pointers,
    and bytes of the file would become addresses.
    """

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[biufc?]\d*", code):
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype({code!r})")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.numpy = self.numpy.newbyteorder(state[1])


class _Array(np.ndarray):
    """NumPy array whose only argument is its type, a :class:`_DType`.

    ``numpy.ndarray((1,), 'O', content)`` would take bytes of the file for an address.
    """

    def __new__(cls, *_: Any) -> _Array:
        return super().__new__(cls, 0)

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, *rest = state
        super().__setstate__((version, shape, _numpy_dtype(dtype), *rest))

    def __reduce__(self) -> tuple:
        return np.asarray(self).__reduce__()  # saved again, it is NumPy's


def _numpy_dtype(dtype: Any) -> np.dtype:
    if type(dtype) is not _DType:
        raise pickle.UnpicklingError(f"an array of {type(dtype).__name__}")
    return dtype.numpy


def _reconstruct(*_: Any) -> _Array:
    return _Array(0)


def _scalar(dtype: Any, content: bytes) -> np.generic:
    return np.frombuffer(content, _numpy_dtype(dtype))[0]


class _HistoryBuffer(HistoryBuffer):
    """MMEngine's log of a value, if it consists of numbers.

    Its constructor would make an array of any object, and NumPy reads memory where an
    object's ``__array_interface__`` says.
    """

    def __init__(self) -> None:
        pass

    def __setstate__(self, state: dict) -> None:
        names = "_log_history", "_count_history"
        if any(type(state[name]) is not _Array for name in names):
            raise pickle.UnpicklingError("a HistoryBuffer of other things than numbers")
        kept = {name: state[name] for name in ("max_length", *names)}
        super().__setstate__(kept)
        self.__class__ = HistoryBuffer


class _Namespace(argparse.Namespace):
    """Namespace without names that have a meaning to Python or NumPy."""

    def __setstate__(self, state: dict) -> None:
        if any(str(name).startswith("__") for name in state):
            raise pickle.UnpicklingError("a Namespace with names of Python's own")
        vars(self).update(state)
        self.__class__ = argparse.Namespace


class _OneCycle:
    """Owner of the functions that a OneCycle schedule refers to."""

    _annealing_cos = staticmethod(OneCycleParamScheduler._annealing_cos)
    _annealing_linear = staticmethod(OneCycleParamScheduler._annealing_linear)


def _getattr(owner: Any, name: str) -> Callable:
    """Return one of the methods that MMEngine's checkpoints refer to."""
    if (owner, name) not in _METHODS:
        raise pickle.UnpicklingError(f"GLOBAL getattr({name!r})")
    return getattr(owner, name)


_METHODS = {
    *((_HistoryBuffer, name) for name in ("min", "max", "current", "mean")),
    (_OneCycle, "_annealing_cos"),
    (_OneCycle, "_annealing_linear"),
}
# Names that a pickle may use, and their stand-ins.
_NUMPY = {
    "numpy.dtype": _DType,
    "numpy.ndarray": _Array,
    **{
        f"{builtins}.bytes": lambda: b""  # the content of an empty array
        for builtins in ("builtins", "__builtin__")
    },
    **{
        f"numpy.{core}.multiarray.{name}": function
        for core in ("core", "_core")  # NumPy 1 and 2
        for name, function in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
}
# In addition to tensors and containers, which torch.load knows.
_MMENGINE = {
    **_NUMPY,
    "builtins.getattr": _getattr,
    "argparse.Namespace": _Namespace,
    "mmengine.logging.history_buffer.HistoryBuffer": _HistoryBuffer,
    "mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler": _OneCycle,
}
_PADDLE = {**_NUMPY, "_codecs.encode": lambda text, encoding: text.encode("latin1")}
#: For ``torch.load`` of MMEngine's checkpoints, with ``weights_only``.
SAFE_GLOBALS = [(function, name) for name, function in _MMENGINE.items()]


class _PaddleUnpickler(pickle.Unpickler):
    """Unpickler for ``.pdparams``: arrays, and nothing else that has a name."""

    def find_class(self, module: str, name: str) -> Callable:
        try:
            return _PADDLE[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}") from None


def read_source(checkpoint: str | Path) -> tuple[Path, Any]:
    """Fetch and read a file of weights.

    Args:
        checkpoint: See :func:`~ghostdet.weights.fetch`.

    Returns:
        The path and the content.

    Raises:
        UserError: If the file cannot be fetched or read. A download that cannot be
            read is removed again.
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

    Returns:
        Tensors, arrays, numbers, text, Python's containers, MMEngine's
        ``HistoryBuffer`` and ``argparse.Namespace``. A ``.safetensors`` file gives a
        dictionary of ``state_dict`` and ``metadata``.

    Raises:
        UserError: If the file is damaged, of another kind, unpacks to more than ten
            times its size, or holds anything else.
    """
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
            state_dict = safetensors.torch.load_file(path)
            return {"state_dict": state_dict, "metadata": metadata}
        source: Path | io.BytesIO = path
        with open(path, "rb") as file:
            if path.suffix == ".pdparams":
                return _PaddleUnpickler(file, encoding="latin1").load()
            if file.read(len(_ZIP)) == _ZIP:
                source = _checked_archive(path)
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            return torch.load(source, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # a damaged file makes them fail in any way
        raise UserError(_refusal(path, error)) from None


def _checked_archive(path: Path) -> io.BytesIO:
    """Copy an archive into memory, comparing checksums, which ``torch.load`` does not.

    A copy, since two readers may find different contents in one prepared file.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(content, "w") as copy:
        size = path.stat().st_size
        unpacked = sum(record.file_size for record in archive.infolist())
        if unpacked > _MAX_RATIO * size:
            raise UserError(
                f"{path} is not opened: its {size} bytes unpack to {unpacked}, which "
                "could fill the memory; have it saved again with torch.save"
            )
        for record in archive.infolist():
            copy.writestr(record.filename, archive.read(record))
    content.seek(0)
    return content


def drop_configs(checkpoint: dict[str, Any]) -> None:
    """Remove the configs that MMEngine keeps as text in a checkpoint.

    ``Runner.resume`` and ``DetInferencer`` would run them as Python.
    """
    message_hub = checkpoint.get("message_hub")
    info = message_hub.get("runtime_info") if isinstance(message_hub, dict) else None
    for part in (checkpoint.get("meta"), info):
        if isinstance(part, dict):
            part.pop("config", None)
            part.pop("cfg", None)


def _refusal(path: Path, error: Exception) -> str:
    """Say why a file is not opened."""
    text = str(error)
    if found := re.search(r"GLOBAL (\S+)", text):
        return (
            f"{path} is not opened, since it holds more than weights: {found[1]}. "
            "Loading it could run code of whoever made it; if that is you, save its "
            "state_dict alone with torch.save and load that"
        )
    if isinstance(error, zipfile.BadZipFile):
        text = f"failed reading zip archive: {text}"
    elif isinstance(error, EOFError):
        text = "the file ends early"
    elif not isinstance(error, (RuntimeError, OSError)):
        text = "not in a form that PyTorch opens safely"
    return (
        f"{path} cannot be read as a checkpoint ({text[:200].split('. ')[0]}); it is "
        "damaged or of another kind: use an earlier one, or copy it again"
    )


@CheckpointLoader.register_scheme(prefixes=["", *REMOTE], force=True)
def load_from_ghostdet(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Make MMEngine load and resume through :func:`read_checkpoint`, to the CPU.

    MMEngine logs "Loads checkpoint by ghostdet backend", from this function's name.
    """
    return read_checkpoint(filename)


def read_checkpoint(filename: str) -> dict[str, Any]:
    """Read a checkpoint; MMEngine loads and resumes through this function.

    Args:
        filename: See :func:`ghostdet.weights.fetch`.

    Returns:
        The content on the CPU, without the configs that MMEngine would run
        (:func:`drop_configs`).

    Raises:
        UserError: If the file cannot be fetched or read, or is not a checkpoint.
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
