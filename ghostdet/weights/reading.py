"""Reading files of weights without running what is in them.

A pickle says which functions to call. Here it may name those of ``_KNOWN`` and nothing
else: what rebuilds tensors from their bytes, and stand-ins that take note of their
state. When all is read, :class:`_Builder` makes plain objects of what was noted. No
object that a pickle could have prepared is ever asked for a method or an attribute.
"""

from __future__ import annotations

import argparse
import pickle
import re
import tarfile
from collections import Counter, OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from torch import Tensor, nn

from ghostdet.errors import UserError

from .source import ADDRESS, fetch

# Classes that are named by what MMEngine saves, and their methods of which that is so.
_CLASSES = {
    "mmengine.logging.history_buffer.HistoryBuffer": (
        HistoryBuffer,
        ("min", "max", "current", "mean"),
    ),
    "mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler": (
        OneCycleParamScheduler,
        ("_annealing_cos", "_annealing_linear"),
    ),
}


class _Refused(pickle.UnpicklingError):
    """A pickle names what is not known to be safe."""


def _expect(value: Any, *types: type) -> Any:
    """The value, if it is of just one of these types."""
    if type(value) not in types:
        raise _Refused(f"a {type(value).__name__}")
    return value


def _check_keys(keys: Any, depth: int = 4) -> None:
    """Refuse keys that are not plain: hashing nested tuples can end the process."""
    for key in keys:
        if type(key) is tuple and depth and len(key) <= 16:
            _check_keys(key, depth - 1)
        else:
            _expect(key, int, float, bool, str, bytes, type(None))


class _Noted:
    """Stands in for an object of a class, and takes note of its state."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _History(_Noted):
    """Of HistoryBuffer."""

    __slots__ = ()


class _Scheduler(_Noted):
    """Of OneCycleParamScheduler, of which only functions are saved."""

    __slots__ = ()


class _Options(_Noted):
    """Of argparse.Namespace."""

    __slots__ = ()


class _Array(_Noted):
    """Of numpy.ndarray."""

    __slots__ = ()


class _DType:
    """Of numpy.dtype: a number's, without the state that could make it anything."""

    __slots__ = ("numpy",)

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[<>|=]?[biufc?]\d*", _expect(code, str)):
            raise _Refused(f"numpy.dtype({code!r})")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order = _expect(state, tuple)[1]
        if order in ("<", ">"):
            self.numpy = self.numpy.newbyteorder(order)


class _Mapping(dict):
    """Of OrderedDict and Counter."""

    __slots__ = ("state",)

    def __init__(self, items: Any = ()) -> None:
        if type(items) is not dict:
            for pair in _expect(items, tuple, list):
                _check_keys(_expect(pair, tuple, list)[:1])
        super().__init__(items)
        self.state = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Counted(_Mapping):
    __slots__ = ()


class _Method:
    """Of a function that belongs to a class."""

    __slots__ = ("owner", "name")

    def __init__(self, owner: Any, name: Any) -> None:
        known = {_History: HistoryBuffer, _Scheduler: OneCycleParamScheduler}
        names = {cls: names for cls, names in _CLASSES.values()}
        cls = known.get(owner) if isinstance(owner, type) else None
        if cls is None or _expect(name, str) not in names[cls]:
            shown = getattr(cls or owner, "__name__", "...")
            raise _Refused(f"getattr({shown}, {name!r})")
        self.owner, self.name = cls, name


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, content: Any) -> np.generic:
    return _numbers(dtype, content, (1,), False)[0]


def _numbers(dtype: Any, content: Any, shape: Any, is_fortran: Any) -> np.ndarray:
    if type(content) is str:  # of Python 2
        content = content.encode("latin1")
    content = bytearray(_expect(content, bytes))
    shape = tuple(_expect(side, int) for side in _expect(shape, tuple))
    order = "F" if _expect(is_fortran, bool, int) else "C"
    return np.frombuffer(content, _expect(dtype, _DType).numpy).reshape(
        shape, order=order
    )


def _encode(text: Any, encoding: Any) -> bytes:
    """Of _codecs.encode, by which protocol 2 writes bytes."""
    if _expect(encoding, str) != "latin1":
        raise _Refused(f"_codecs.encode({encoding!r})")
    return _expect(text, str).encode("latin1")


def _no_bytes() -> bytes:
    """Of bytes, by which protocol 2 writes none."""
    return b""


def _set(items: Any) -> set:
    _check_keys(_expect(items, list))
    return set(items)


def _size(sides: Any) -> torch.Size:
    return torch.Size(_expect(side, int) for side in _expect(sides, tuple, list))


def _device(kind: Any, index: Any = None) -> torch.device:
    return torch.device("cpu")  # where all is read to


def _tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    storage = _expect(storage, torch.storage.TypedStorage)
    size = tuple(_expect(side, int) for side in _expect(size, tuple, torch.Size))
    stride = tuple(_expect(side, int) for side in _expect(stride, tuple))
    if metadata or len(size) != len(stride) or min(_expect(offset, int), *size, 0) < 0:
        raise _Refused("a tensor of another kind")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    # Torch would enlarge the storage, with whatever is in memory there.
    if min(stride, default=0) < 0 or (0 not in size and last >= storage._size()):
        raise _Refused("a tensor larger than its storage")
    return torch._utils._rebuild_tensor_v2(
        storage, offset, size, stride, bool(requires_grad), OrderedDict()
    )


def _parameter(data: Any, requires_grad: Any, *_: Any) -> nn.Parameter:
    return nn.Parameter(_expect(data, Tensor).detach(), bool(requires_grad))


# What a pickle may name.
_KNOWN = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _size,
    "torch.device": _device,
    "collections.OrderedDict": _Mapping,
    "collections.Counter": _Counted,
    "argparse.Namespace": _Options,
    "_codecs.encode": _encode,
    "numpy.dtype": _DType,
    "numpy.ndarray": _Array,
    **{
        f"numpy.{core}.multiarray.{name}": function
        for core in ("core", "_core")  # of NumPy 1 and 2
        for name, function in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
    **{
        f"{builtins}.{name}": function
        for builtins in ("builtins", "__builtin__")
        for name, function in (
            ("getattr", _Method),
            ("bytes", _no_bytes),
            ("set", _set),
        )
    },
    **dict(zip(_CLASSES, (_History, _Scheduler))),
}


class _Unpickler(pickle._Unpickler):
    """Gives a pickle ``_KNOWN`` and torch's types of numbers.

    Python's own unpickler, for its dispatch: each opcode that asks something of an
    object is for the types that it is meant for.
    """

    dispatch = {
        opcode: function
        for opcode, function in pickle._Unpickler.dispatch.items()
        if opcode
        not in b"".join(
            getattr(pickle, name)
            for name in "INST OBJ EXT1 EXT2 EXT4 NEWOBJ_EX NEXT_BUFFER".split()
        )
    }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(
            dtype := vars(torch).get(name), torch.dtype
        ):
            return dtype
        try:
            return _KNOWN[f"{module}.{name}"]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def _call(self) -> None:
        """REDUCE, NEWOBJ: a function or class and its arguments."""
        if not any(self.stack[-2] is known for known in _KNOWN.values()):
            raise _Refused(f"a call of a {type(self.stack[-2]).__name__}")
        _expect(self.stack[-1], tuple)

    def _build(self) -> None:
        _expect(
            self.stack[-2],
            *(_History, _Scheduler, _Options, _Array, _DType, _Mapping, _Counted),
        )

    def _set_item(self) -> None:
        _expect(self.stack[-3], dict, _Mapping, _Counted)
        _check_keys(self.stack[-2:-1])

    def _set_items(self) -> None:
        _expect(self.metastack[-1][-1], dict, _Mapping, _Counted)
        _check_keys(self.stack[::2])

    def _append(self) -> None:
        _expect(self.stack[-2], list)

    def _extend(self) -> None:
        _expect(self.metastack[-1][-1], list)

    def _add_items(self) -> None:
        _expect(self.metastack[-1][-1], set)
        _check_keys(self.stack)

    def _new_dict(self) -> None:
        _check_keys(self.stack[::2])

    def _new_set(self) -> None:
        _check_keys(self.stack)

    @staticmethod
    def _guarded(check: Any, run: Any) -> Any:
        def both(self: _Unpickler) -> None:
            check(self)
            run(self)

        return both

    for _opcode, _check in (
        (pickle.REDUCE, _call),
        (pickle.NEWOBJ, _call),
        (pickle.BUILD, _build),
        (pickle.SETITEM, _set_item),
        (pickle.SETITEMS, _set_items),
        (pickle.APPEND, _append),
        (pickle.APPENDS, _extend),
        (pickle.ADDITEMS, _add_items),
        (pickle.DICT, _new_dict),
        (pickle.FROZENSET, _new_set),
    ):
        dispatch[_opcode[0]] = _guarded(_check, dispatch[_opcode[0]])
    del _opcode, _check


def _unpickle(file: Any, **kwargs: Any) -> Any:
    return _Unpickler(file, **kwargs).load()


# In the place of the module ``pickle``, for torch.load.
_PICKLE = SimpleNamespace(Unpickler=_Unpickler, load=_unpickle, __name__="ghostdet")


class _Builder:
    """Makes plain objects of what was read, each of them once."""

    def __init__(self) -> None:
        self.done: dict[int, Any] = {}

    def build(self, node: Any) -> Any:
        """The object that stands for ``node``."""
        kind = type(node)
        if kind in (int, float, complex, bool, str, bytes, type(None)) or isinstance(
            node, (np.generic, torch.dtype, torch.Size, torch.device)
        ):
            return node
        if id(node) not in self.done:
            if kind in (dict, _Mapping, _Counted, list):
                self._container(node)
            else:
                self.done[id(node)] = self._other(node)
        return self.done[id(node)]

    def _container(self, node: Any) -> None:
        """Note the new container first: it may hold itself."""
        new = {dict: dict, _Mapping: OrderedDict, _Counted: Counter, list: list}[
            type(node)
        ]()
        self.done[id(node)] = new
        if type(node) is list:
            new.extend(map(self.build, node))
            return
        for key, value in dict.items(node):
            new[self.build(key)] = self.build(value)
        if type(node) is _Mapping and type(node.state) is dict:
            metadata = self.build(node.state.get("_metadata"))
            if isinstance(metadata, dict) and all(
                type(version) is dict for version in metadata.values()
            ):
                new._metadata = metadata  # of a state dict: versions of modules

    def _other(self, node: Any) -> Any:
        kind = type(node)
        if kind is tuple:
            return tuple(map(self.build, node))
        if kind is set:
            return set(map(self.build, node))
        if kind is Tensor:
            return node.detach().requires_grad_(node.requires_grad)
        if kind is nn.Parameter:
            return nn.Parameter(node.detach(), node.requires_grad)
        if kind is _Array:
            _, shape, dtype, is_fortran, content = _expect(node.state, tuple)
            return _numbers(dtype, content, shape, is_fortran)
        if kind is _DType:
            return node.numpy
        if kind is _Method:
            return getattr(node.owner, node.name)
        state = self.build(_expect(getattr(node, "state", None) or {}, dict))
        if kind is _Options:
            return argparse.Namespace(**state)
        if kind is _History:
            history, count = state["_log_history"], state["_count_history"]
            for values in (history, count):
                if _expect(values, np.ndarray).ndim != 1:
                    raise _Refused("a history of another shape")
            return HistoryBuffer(history, count, _expect(state["max_length"], int))
        raise _Refused(f"a {kind.__name__}")


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

    Args:
        path: The file; ``.safetensors`` and ``.pdparams`` are known by their suffix.

    Returns:
        What it holds: tensors, arrays, numbers, text, Python's containers, MMEngine's
        ``HistoryBuffer`` and ``argparse.Namespace``. Of safetensors, ``state_dict`` and
        the file's ``metadata``.

    Raises:
        UserError: If the file is damaged, of another kind, or holds anything else.
    """
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
            return {
                "state_dict": safetensors.torch.load_file(path),
                "metadata": metadata,
            }
        if path.suffix == ".pdparams":
            with open(path, "rb") as file:
                return _Builder().build(_unpickle(file, encoding="latin1"))
        _refuse_programs(path)
        # With a pickle module, torch leaves the choice of what is safe to it.
        content = torch.load(
            path, map_location="cpu", pickle_module=_PICKLE, weights_only=False
        )
        return _Builder().build(content)
    except Exception as error:  # an unpickler fails in any way on a file of any kind
        raise UserError(_refusal(path, error)) from None


def _refuse_programs(path: Path) -> None:
    """Refuse TorchScript, which ``torch.load`` would run, and archives before 2016."""
    with open(path, "rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04":
        if "constants.pkl" in torch._C.PyTorchFileReader(str(path)).get_all_records():
            raise _Refused("a TorchScript program")
    elif tarfile.is_tarfile(path):
        raise _Refused("an archive of torch before 2016")


def _refusal(path: Path, error: Exception) -> str:
    """Why a file is not opened."""
    if isinstance(error, _Refused):
        return (
            f"{path} is not opened, since it holds more than weights: {error}. "
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
