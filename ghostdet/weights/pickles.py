"""What a pickle in a file of weights may hold.

A pickle says which functions to call. Here it may name those of ``_KNOWN`` and nothing
else: what rebuilds tensors from their bytes, and stand-ins that take note of their
state. When all is read, :class:`_Builder` makes plain objects of what was noted. No
object that a pickle could have prepared is ever asked for a method or an attribute.
Memory is bounded by the size of the file: see :class:`_Budget`.
"""

from __future__ import annotations

import argparse
import math
import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from torch import Tensor, nn

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


# Opcodes, and entries that are copied, of the smallest pickle that is refused: some
# hundred bytes each.
STEPS = 2_000_000


class Refused(pickle.UnpicklingError):
    """A file holds what is not known to be safe."""


class Oversized(pickle.UnpicklingError):
    """Reading a file would take far more memory than its size."""


class _Budget:
    """Bounds what a pickle makes by its size.

    An object may be named again in two bytes, so whatever is copied counts each time:
    entries of containers one by one, and 64 bytes of text or numbers as one.
    """

    def __init__(self, size: int) -> None:
        self.left = STEPS + size // 64

    def spend(self, amount: int) -> None:
        """Count; raises :class:`Oversized` where that was too much."""
        self.left -= amount
        if self.left < 0:
            raise Oversized("a pickle that unfolds to far more than it is")


def expect(value: Any, *types: type) -> Any:
    """The value, if it is of just one of these types."""
    if type(value) not in types:
        raise Refused(f"a {type(value).__name__}")
    return value


def _check_keys(keys: Any, depth: int = 2) -> None:
    """Refuse keys that are not plain: hashing nested tuples can end the process."""
    for key in keys:
        if type(key) is tuple and depth and len(key) <= 16:
            _check_keys(key, depth - 1)
        else:
            expect(key, int, float, bool, str, bytes, type(None))


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
        if not re.fullmatch(r"[<>|=]?[biufc?]\d*", expect(code, str)):
            raise Refused(f"numpy.dtype({code!r})")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order = expect(state, tuple)[1]
        if order in ("<", ">"):
            self.numpy = self.numpy.newbyteorder(order)


class _Mapping(dict):
    """Of OrderedDict and Counter."""

    __slots__ = ("state",)

    def __init__(self, items: Any = ()) -> None:
        if type(items) is not dict:
            for pair in expect(items, tuple, list):
                _check_keys(expect(pair, tuple, list)[:1])
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
        if cls is None or expect(name, str) not in names[cls]:
            shown = getattr(cls or owner, "__name__", "...")
            raise Refused(f"getattr({shown}, {name!r})")
        self.owner, self.name = cls, name


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, content: Any) -> np.generic:
    return _numbers(dtype, content, (1,), False)[0]


def _numbers(dtype: Any, content: Any, shape: Any, is_fortran: Any) -> np.ndarray:
    if type(content) is str:  # of Python 2
        content = content.encode("latin1")
    content = bytearray(expect(content, bytes))
    shape = tuple(expect(side, int) for side in expect(shape, tuple))
    order = "F" if expect(is_fortran, bool, int) else "C"
    return np.frombuffer(content, expect(dtype, _DType).numpy).reshape(
        shape, order=order
    )


def _encode(text: Any, encoding: Any) -> bytes:
    """Of _codecs.encode, by which protocol 2 writes bytes."""
    if expect(encoding, str) != "latin1":
        raise Refused(f"_codecs.encode({encoding!r})")
    return expect(text, str).encode("latin1")


def _no_bytes() -> bytes:
    """Of bytes, by which protocol 2 writes none."""
    return b""


def _set(items: Any) -> set:
    _check_keys(expect(items, list))
    return set(items)


def _size(sides: Any) -> torch.Size:
    return torch.Size(expect(side, int) for side in expect(sides, tuple, list))


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
    storage = expect(storage, torch.storage.TypedStorage)
    size = tuple(expect(side, int) for side in expect(size, tuple, torch.Size))
    stride = tuple(expect(side, int) for side in expect(stride, tuple))
    lowest, highest = min(expect(offset, int), *size, 0), max(offset, 0, *size, *stride)
    if metadata or len(size) != len(stride) or lowest < 0 or highest >= 2**63:
        raise Refused("a tensor of another kind")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    # Torch would enlarge the storage, with whatever is in memory there.
    if min(stride, default=0) < 0 or (0 not in size and last >= storage._size()):
        raise Refused("a tensor larger than its storage")
    return torch._utils._rebuild_tensor_v2(
        storage, offset, size, stride, bool(requires_grad), OrderedDict()
    )


def _parameter(data: Any, requires_grad: Any, *_: Any) -> nn.Parameter:
    return nn.Parameter(expect(data, Tensor).detach(), bool(requires_grad))


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
    object is for the types that it is meant for, and each is counted.
    """

    def __init__(self, file: BinaryIO, budget: _Budget, **kwargs: Any) -> None:
        super().__init__(file, **kwargs)
        self.spend = budget.spend

    dispatch = {
        opcode: function
        for opcode, function in pickle._Unpickler.dispatch.items()
        if opcode
        not in b"".join(
            getattr(pickle, name)
            for name in (
                *("INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX"),
                *("NEXT_BUFFER", "READONLY_BUFFER"),
                "BYTEARRAY8",  # makes as many bytes as it says before it reads any
            )
        )
    }

    def find_class(self, module: str, name: str) -> Any:
        known = vars(torch).get(name) if module in ("torch", "torch.cuda") else None
        if isinstance(known, torch.dtype):
            return known
        if isinstance(known, type) and issubclass(known, torch.TypedStorage):
            return known._dtype
        try:
            return _KNOWN[f"{module}.{name}"]
        except KeyError:
            raise Refused(f"{module}.{name}") from None

    def _call(self) -> None:
        """REDUCE, NEWOBJ: a function or class and its arguments."""
        if not any(self.stack[-2] is known for known in _KNOWN.values()):
            raise Refused(f"a call of a {type(self.stack[-2]).__name__}")
        for argument in expect(self.stack[-1], tuple):
            self.spend(_length(argument))

    def _build(self) -> None:
        expect(
            self.stack[-2],
            *(_History, _Scheduler, _Options, _Array, _DType, _Mapping, _Counted),
        )

    def _set_item(self) -> None:
        expect(self.stack[-3], dict, _Mapping, _Counted)
        _check_keys(self.stack[-2:-1])

    def _set_items(self) -> None:
        expect(self.metastack[-1][-1], dict, _Mapping, _Counted)
        _check_keys(self.stack[::2])

    def _append(self) -> None:
        expect(self.stack[-2], list)

    def _extend(self) -> None:
        expect(self.metastack[-1][-1], list)

    def _add_items(self) -> None:
        expect(self.metastack[-1][-1], set)
        _check_keys(self.stack)

    def _new_dict(self) -> None:
        _check_keys(self.stack[::2])

    def _new_set(self) -> None:
        _check_keys(self.stack)

    @staticmethod
    def _guarded(check: Any, run: Any) -> Any:
        def step(self: _Unpickler) -> None:
            self.spend(1)
            if check is not None:
                check(self)
            run(self)

        return step

    _checks = {
        pickle.REDUCE: _call,
        pickle.NEWOBJ: _call,
        pickle.BUILD: _build,
        pickle.SETITEM: _set_item,
        pickle.SETITEMS: _set_items,
        pickle.APPEND: _append,
        pickle.APPENDS: _extend,
        pickle.ADDITEMS: _add_items,
        pickle.DICT: _new_dict,
        pickle.FROZENSET: _new_set,
    }
    for _opcode, _run in dispatch.items():
        dispatch[_opcode] = _guarded(_checks.get(bytes([_opcode])), _run)
    del _opcode, _run


def _length(value: Any) -> int:
    """What a copy of it costs, see :class:`_Budget`."""
    if isinstance(value, (str, bytes)):
        return len(value) // 64
    return len(value) if isinstance(value, (tuple, list, dict, set)) else 0


class Pickles:
    """Reads the pickles of one file.

    Args:
        size: Bytes of the file, which bound what they may unfold to.
        storages: Makes a storage of what torch notes of it in a pickle.
        encoding: As of :class:`pickle.Unpickler`, for files that Python 2 wrote.
    """

    def __init__(
        self,
        size: int,
        storages: Callable[[Any], Any] | None = None,
        encoding: str = "utf-8",
    ) -> None:
        self.budget = _Budget(size)
        self.storages = storages
        self.encoding = encoding

    def read(self, file: BinaryIO) -> Any:
        """Read the next pickle.

        Args:
            file: Where it begins.

        Returns:
            What it holds, of tensors, arrays, numbers, text and Python's containers.

        Raises:
            Refused: If it holds anything else.
        """
        unpickler = _Unpickler(file, self.budget, encoding=self.encoding)
        if self.storages is not None:
            unpickler.persistent_load = self.storages
        return _Builder(self.budget).build(unpickler.load())


class _Builder:
    """Makes plain objects of what was read, each of them once."""

    def __init__(self, budget: _Budget) -> None:
        self.spend = budget.spend
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
        if isinstance(node, Tensor):  # of stride 0, it is larger than its storage
            nbytes = math.prod(node.shape) * node.element_size()
            self.spend(max(0, nbytes - node.untyped_storage().nbytes()) // 64)
        if kind is Tensor:
            return node.detach().requires_grad_(node.requires_grad)
        if kind is nn.Parameter:
            return nn.Parameter(node.detach(), node.requires_grad)
        if kind is _Array:
            _, shape, dtype, is_fortran, content = expect(node.state, tuple)
            self.spend(_length(content))
            return _numbers(dtype, content, shape, is_fortran)
        if kind is _DType:
            return node.numpy
        if kind is _Method:
            return getattr(node.owner, node.name)
        state = self.build(expect(getattr(node, "state", None) or {}, dict))
        if kind is _Options:
            self.spend(len(state))
            return argparse.Namespace(**state)
        if kind is _History:
            history, count = state["_log_history"], state["_count_history"]
            for values in (history, count):
                if expect(values, np.ndarray).ndim != 1:
                    raise Refused("a history of another shape")
                self.spend(values.nbytes // 64)
            return HistoryBuffer(history, count, expect(state["max_length"], int))
        raise Refused(f"a {kind.__name__}")
