"""What a pickle may hold: plain arrays, which are rebuilt, and nothing that runs."""

import argparse
import pickle

import numpy as np
import pytest
import torch

from ghostdet.errors import UserError
from ghostdet.weights.reading import read_file


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


def test_scalars(saved):
    assert saved({"a": np.float32(0.5)})["a"] == 0.5


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


class Encode:
    def __reduce__(self):
        import _codecs

        return _codecs.encode, ("abc", "rot13")


def test_codecs(tmp_path):
    save_paddle({"a": Encode()}, tmp_path / "a.pdparams")
    with pytest.raises(UserError, match="cannot be read"):
        read_file(tmp_path / "a.pdparams")
