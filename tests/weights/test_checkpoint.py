"""What a pickle may hold: plain arrays, which are rebuilt, and nothing that runs."""

import _codecs
import argparse
import pickle
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from ghostdet.errors import UserError
from ghostdet.weights.checkpoint import read_file


def save_torch(content, path):
    torch.save(content, path)


def save_paddle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.fixture(params=[(save_torch, "a.pth"), (save_paddle, "a.pdparams")])
def saved(request, tmp_path):
    """A function that writes and reads again."""
    save, name = request.param

    def run(content):
        save(content, tmp_path / name)
        return read_file(tmp_path / name)

    return run


@pytest.mark.parametrize("dtype", ["u1", "i2", "<u4", ">i8", "f2", ">f4", "c8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays(saved, dtype, order):
    array = np.asarray(np.arange(6).reshape(2, 3), dtype, order)
    read = saved({"a": [array, (array[0],)], "empty": array[:0]})
    assert type(read["a"][0]) is np.ndarray
    assert read["a"][0].dtype == array.dtype
    assert np.array_equal(read["a"][0], array)
    assert np.array_equal(read["a"][1][0], array[0])
    assert read["empty"].shape == (0, 3)


def test_scalars_and_types(saved):
    content = {"a": np.float32(0.5), "b": np.dtype(">i4")}
    assert saved(content) == content


def test_options_of_a_training_script(tmp_path):
    torch.save({"args": argparse.Namespace(lr=np.ones(1))}, tmp_path / "a.pth")
    assert read_file(tmp_path / "a.pth")["args"].lr == 1


@pytest.mark.parametrize(
    "content",
    [
        np.array([("text", 1)], [("config", "U9"), ("epoch", "i8")])[0],  # np.void
        np.array([("text", 1)], [("config", "U9"), ("epoch", "i8")]),
        np.array([{}], object),
        np.array(["text"]),
        np.array(["2026-01-01"], "M8[D]"),
    ],
    ids=["void", "structured", "object", "text", "date"],
)
def test_other_arrays(saved, content):
    with pytest.raises(UserError, match="is not opened|cannot be read"):
        saved({"meta": content})


class ForgedDType:
    """A type of numbers whose state says that they are pointers to objects."""

    def __reduce__(self):
        fields = {"a": (np.dtype("i8"), 0)}
        return np.dtype, ("i8",), (3, "|", None, ("a",), fields, 8, 1, 0x3F)


class ForgedArray:
    def __reduce__(self):
        state = (1, (1,), ForgedDType(), False, b"\xff" * 8)
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state


def test_forged_memory(saved):
    """Eight bytes of the file must not become a pointer; they stay a number."""
    assert saved({"a": ForgedArray()})["a"].tolist() == [-1]


class Calls:
    """Pickled, it calls a function when it is opened."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_codecs(tmp_path):
    encode = Calls(_codecs.encode, "abc", "rot13")
    save_paddle({"a": encode}, tmp_path / "a.pdparams")
    with pytest.raises(UserError, match=r"_codecs.encode\('rot13'\)"):
        read_file(tmp_path / "a.pdparams")


class Prepared:
    """An object of a class, with attributes that code might ask it for."""

    def __init__(self, cls, **attributes):
        self.reduced = cls, (), attributes

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("cls", [OrderedDict, argparse.Namespace])
@pytest.mark.parametrize("name", ["pop", "value", "get", "items", "as_subclass"])
def test_prepared_attributes_are_gone(saved, cls, name):
    read = saved({"meta": Prepared(cls, **{name: 1}), "x": [1]})["meta"]
    if cls is OrderedDict:
        assert callable(getattr(read, name, print))
    else:
        assert vars(read) == {name: 1}


def array_interface():
    address = np.ones(1).__array_interface__["data"]
    return dict(
        __array_interface__=dict(data=address, typestr="<i8", shape=(1,), version=3)
    )


def fake_dtype():
    return Prepared(OrderedDict, value="U2", numpy="U2")


@pytest.mark.parametrize(
    "content",
    [
        Prepared(
            HistoryBuffer, _log_history=Prepared(OrderedDict, **array_interface())
        ),
        Prepared(HistoryBuffer, max_length=9, _log_history=[1], _count_history=[1]),
        Calls(HistoryBuffer, [1], [1]),
        Calls(HistoryBuffer, Prepared(OrderedDict, **array_interface()), [1]),
        Calls(np._core.multiarray.scalar, fake_dtype(), b"abcdefgh"),
        Calls(np._core.multiarray.scalar, ForgedDType(), 2**40),
        Calls(
            torch._tensor._rebuild_from_type_v2, print, HistoryBuffer, (), {"mean": 7}
        ),
        Calls(bytes, 2**40),
        Calls(set, "abc"),
        Calls(getattr, HistoryBuffer, "__init__"),
        Calls(getattr, Prepared(OrderedDict), "pop"),
    ],
    ids=range(11),
)
def test_prepared_arguments_are_refused(saved, content):
    before = dict(vars(HistoryBuffer))
    with pytest.raises(UserError):
        saved({"a": content})
    assert dict(vars(HistoryBuffer)) == before


def test_what_is_shared_is_read_once(saved):
    """Two to the sixtieth lists, else."""
    node = [1]
    for _ in range(60):
        node = [node, node]
    read = saved(node)
    assert read[0] is read[1]


def test_cycle(saved):
    node = {}
    node["a"] = [node]
    read = saved(node)
    assert read["a"][0] is read


def test_history_and_metadata_are_whole(tmp_path):
    """And what was read can be saved again, with nothing of ours in it."""
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    content = {"state_dict": model.state_dict(), "loss": history, "c": Counter("aab")}
    torch.save(content, tmp_path / "a.pth")
    read = read_file(tmp_path / "a.pth")
    assert read["loss"].mean() == 2 and read["c"]["a"] == 2
    assert read["state_dict"]._metadata == model.state_dict()._metadata
    read["loss"].update(5.0)
    torch.save(read, tmp_path / "b.pth")
    with zipfile.ZipFile(tmp_path / "b.pth") as archive:
        assert b"ghostdet" not in archive.read("b/data.pkl")
    assert read_file(tmp_path / "b.pth")["loss"].mean() == 3


def test_torchscript(tmp_path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "a.pth"))
    with pytest.raises(UserError, match="more than weights: a TorchScript program"):
        read_file(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.uint8, torch.bool]
)
def test_tensors(tmp_path, dtype):
    base = torch.arange(12).to(dtype)
    content = {
        "view": base[2:8].view(2, 3).t(),
        "parameter": torch.nn.Parameter(torch.ones(1)),
    }
    for old in (False, True):
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
        read = read_file(tmp_path / "a.pth")
        assert torch.equal(read["view"], content["view"])
        assert read["view"].dtype == dtype
        assert type(read["parameter"]) is torch.nn.Parameter


def test_a_damaged_byte_is_noticed(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(b"\x00\x00\x80?" * 100) + 200] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="failed reading zip archive: Bad CRC-32"):
        read_file(path)


@pytest.mark.parametrize("old", [False, True])
def test_shared_storages_stay_shared(tmp_path, old):
    base = torch.arange(6.0)
    content = {
        "a": base,
        "b": base[2:],
        "empty": torch.ones(0, 3),
        "number": torch.tensor(5.0),
        "positions": base.expand(2, 6),
    }
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    read = read_file(tmp_path / "a.pth")
    read["a"][3] = 7
    assert read["b"].tolist() == [2, 7, 4, 5] and read["empty"].shape == (0, 3)
    assert read["number"] == 5 and read["positions"][1].tolist() == [0, 1, 2, 7, 4, 5]


def test_what_opcodes_may_change(tmp_path):
    """Pickles written by hand: state for a function, nested keys, calls of others."""
    getattr_ = b"cbuiltins\ngetattr\n"
    deep = b")" + b"\x85" * 100_000
    for program in (
        getattr_ + b"N}U\x05ownerI1\ns\x86b.",  # BUILD of a class
        b"}" + deep + b"Ns.",  # SETITEM
        b"(" + deep + b"Nd.",  # DICT
        b"]" + b"(I1\nI2\nu.",  # SETITEMS of a list
        b"}I1\na.",  # APPEND to a dictionary
        b"(I1\nccollections\nOrderedDict\no.",  # OBJ
        b"]" + b")R.",  # REDUCE of a list
    ):
        (tmp_path / "a.pdparams").write_bytes(b"\x80\x02" + program)
        with pytest.raises(UserError):
            read_file(tmp_path / "a.pdparams")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "size, stride", [((10**9,), (1,)), ((2, 2), (1,)), ((9,), (-1,))]
)
def test_tensors_stay_in_their_storage(tmp_path, old, size, stride):
    storage = torch.ones(4).storage()
    rebuild = Calls(
        torch._utils._rebuild_tensor_v2, storage, 0, size, stride, False, OrderedDict()
    )
    torch.save(rebuild, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    with pytest.raises(UserError, match="a tensor (larger|of another)"):
        read_file(tmp_path / "a.pth")
