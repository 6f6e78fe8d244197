"""Files of weights: read back, found damaged, or refused without running anything."""

import argparse
import os
import pickle
import random
import struct
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch.utils._pytree import tree_leaves

from ghostdet import apis
from ghostdet.errors import UserError
from ghostdet.weights import convert, read_checkpoint
from ghostdet.weights.checkpoint import read_file


def save_old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_paddle(content, path):
    Path(path).write_bytes(pickle.dumps(content, protocol=2))


FORMATS = [(torch.save, "a.pth"), (save_old, "a.pth"), (save_paddle, "a.pdparams")]


@pytest.fixture(params=FORMATS, ids=["zip", "old", "paddle"])
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
    assert read["a"][0].dtype == array.dtype.newbyteorder("=")  # as NumPy reads it
    assert np.array_equal(read["a"][0], array)
    assert np.array_equal(read["a"][1][0], array[0])
    assert read["empty"].shape == (0, 3)


def test_scalars(saved):
    assert saved({"a": np.float32(0.5), "b": np.int64(3)}) == {"a": 0.5, "b": 3}


@pytest.mark.parametrize(
    "content",
    [
        np.array([("text", 1)], [("config", "U9"), ("epoch", "i8")])[0],  # np.void
        np.array([{}], object),
        np.array(["text"]),
    ],
    ids=["void", "object", "text"],
)
def test_other_arrays(saved, content):
    with pytest.raises(UserError, match="is not opened|cannot be read"):
        saved({"meta": content})


class Calls:
    """Pickled, it calls a function when it is opened."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


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
    direct = Calls(np.ndarray, (1,), "O", b"\xff" * 8)
    assert saved({"a": direct})["a"].tolist() == []


class Interface:
    """Pickled, a Namespace that names an address to NumPy."""

    def __reduce__(self):
        where = dict(version=3, shape=(1,), typestr="|u1", data=(8, False))
        return argparse.Namespace, (), {"__array_interface__": where}


def test_history_of_other_things(tmp_path):
    history = HistoryBuffer([1.0], [1])
    history._log_history = [argparse.Namespace()]
    torch.save({"a": history}, tmp_path / "a.pth")
    with pytest.raises(UserError):
        read_file(tmp_path / "a.pth")


def test_two_directories(tmp_path):
    """Python reads a second directory, which hides a tensor that torch reads."""
    torch.save({"a": torch.zeros(10_000)}, tmp_path / "plain.pth")
    plain, path = tmp_path / "plain.pth", tmp_path / "a.pth"
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    content, size = path.read_bytes(), 0
    end = content.rindex(b"PK\5\6")
    size, start = struct.unpack("<LL", content[end + 12 : end + 20])
    hidden = bytearray(content[start : start + size])
    place = hidden.rindex(b"PK\1\2", 0, hidden.index(b"data/0"))
    hidden[place + 16 : place + 28] = bytes(12)  # no checksum, no size
    place = -1
    while (place := hidden.find(b"PK\1\2", place + 1)) >= 0:
        (offset,) = struct.unpack("<L", hidden[place + 42 : place + 46])
        moved = (offset - size) % 2**32  # Python adds the shift of the directory
        hidden[place + 42 : place + 46] = struct.pack("<L", moved)
    path.write_bytes(content[: start + size] + hidden + content[end:])
    assert torch.load(path)["a"].shape == (10_000,)
    with pytest.raises(UserError):
        read_file(path)


def test_what_training_writes_can_be_saved_again(tmp_path):
    """Also what numpy 1 wrote, with nothing of ours in the second file."""
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    content = {
        "state_dict": model.state_dict(),
        "loss": HistoryBuffer([1.0, 3.0], [1, 1]),
        "count": Counter("aab"),
        "args": argparse.Namespace(lr=np.ones(1)),
    }
    save_old(content, tmp_path / "a.pth")
    file = (tmp_path / "a.pth").read_bytes()
    assert b"numpy._core.multiarray" in file
    file = file.replace(b"numpy._core.multi", b"numpy.core.multi")
    (tmp_path / "a.pth").write_bytes(file)
    read = read_file(tmp_path / "a.pth")
    assert read["loss"].mean() == 2 and read["count"]["a"] == 2
    assert read["args"].lr.tolist() == [1]
    assert read["state_dict"]._metadata == model.state_dict()._metadata
    torch.save(read, tmp_path / "b.pth")
    with zipfile.ZipFile(tmp_path / "b.pth") as archive:
        assert b"ghostdet" not in archive.read("b/data.pkl")
    read["loss"].update(5.0)
    torch.save(read, tmp_path / "b.pth")
    assert read_file(tmp_path / "b.pth")["loss"].mean() == 3


def check_flipped_bits(path, count):
    """With a bit flipped, a file cannot be read, or gives the same tensors."""
    original, expected = path.read_bytes(), tree_leaves(read_file(path)["state_dict"])
    rng = random.Random(0)
    flipped, outcomes = path.with_name("flipped.pth"), Counter()
    # At the end lies the directory of the archive.
    places = [rng.randrange(len(original)) for _ in range(count)]
    places += [rng.randrange(len(original) - 500, len(original)) for _ in range(20)]
    for place in places:
        content = bytearray(original)
        content[place] ^= 1 << rng.randrange(8)
        flipped.write_bytes(content)
        try:
            read = tree_leaves(read_file(flipped)["state_dict"])
        except UserError:
            outcomes["error"] += 1
            continue
        assert len(read) == len(expected) > 0
        assert all(torch.equal(a, b) for a, b in zip(read, expected)), place
        outcomes["equal"] += 1
    return outcomes


def test_flipped_bits(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pth")
    outcomes = check_flipped_bits(tmp_path / "a.pth", 40)
    assert outcomes["error"] and outcomes["equal"]


@pytest.mark.long
def test_flipped_bits_of_a_training_checkpoint(trained, tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes((trained / "iter_4.pth").read_bytes())
    assert check_flipped_bits(path, 200)["error"] > 190


# Hostile files. A payload would leave a file called `marker`.


def bomb(content, path):
    """An archive of 300 kB with a tensor of 256 MB."""
    plain = path.with_name("plain")
    torch.save({"a": torch.ones(4), **content}, plain)
    with (
        zipfile.ZipFile(plain) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for name in old.namelist():
            data = bytes(2**28) if name.endswith("data/0") else old.read(name)
            new.writestr(name, data)
    plain.unlink()


def script(content, path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))


def absurd_header(content, path):
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")


CODE = r"more than weights: (posix|pathlib|getattr|__builtin__.getattr)"
HOSTILE = {
    "zip.pth": (torch.save, CODE),
    "old.pth": (save_old, CODE),
    "pickle.pth": (save_paddle, CODE),
    "paddle.pdparams": (save_paddle, CODE),
    "pickle.safetensors": (save_paddle, "cannot be read as"),
    "bomb.pth": (bomb, "which could fill the memory"),
    "script.pth": (script, "TorchScript"),
    "header.safetensors": (absurd_header, "cannot be read as"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file(tmp_path, name):
    make, message = HOSTILE[name]
    path, marker = tmp_path / name, tmp_path / "marker"
    for payload in (Calls(Path.touch, marker), Calls(os.system, f"touch {marker}")):
        make({"state_dict": {}, "x": payload}, path)
        for read in (read_checkpoint, CheckpointLoader.load_checkpoint):
            with pytest.raises(UserError, match=message) as caught:
                read(str(path))
            assert str(path) in caught.value.text and len(caught.value.text) < 600
        assert not marker.exists()
        pickle.loads(pickle.dumps(payload))
        assert marker.exists()  # it would have been
        marker.unlink()


def test_every_way_refuses(tiny, cells, tmp_path):
    path, marker = str(tmp_path / "a.pth"), tmp_path / "marker"
    torch.save({"x": Calls(Path.touch, marker)}, path)
    image = min((cells / "images").iterdir())
    for run in (
        lambda: apis.test(tiny(), path),
        lambda: apis.train(tiny(), resume=path),
        lambda: apis.train(tiny({"load_from": path})),
        lambda: apis.infer(image, tiny(), path, tmp_path / "out"),
        lambda: convert.inspect(path),
    ):
        with pytest.raises(UserError, match="more than weights: pathlib"):
            run()
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        Calls(getattr, OrderedDict, "fromkeys"),
        Calls(getattr, HistoryBuffer, "__init__"),
        Calls(getattr, HistoryBuffer, "register_statistics"),
        Calls(np._core.multiarray.scalar, ForgedDType(), 2**40),
        Calls(np._core.multiarray.scalar, argparse.Namespace(numpy="U2"), b"12345678"),
        Calls(bytes, 2**40),
        Calls(HistoryBuffer, [Interface()], [1]),
        Interface(),
    ],
    ids=range(8),
)
def test_prepared_arguments(saved, content):
    before = dict(vars(HistoryBuffer))
    with pytest.raises(UserError):
        saved({"a": content})
    assert dict(vars(HistoryBuffer)) == before


@pytest.fixture
def embedded(trained, tmp_path):
    """A checkpoint with configs that leave a file, wherever one is read from."""
    marker = tmp_path / "marker"
    text = f"a = open({str(marker)!r}, 'w').close()\n"
    content = read_file(trained / "iter_2.pth")
    content["meta"].update(config=text, cfg=text)
    content["message_hub"]["runtime_info"]["cfg"] = text
    torch.save(content, tmp_path / "a.pth")
    yield tmp_path / "a.pth"
    assert not marker.exists()
    Config.fromstring(text, file_format=".py")
    assert marker.exists()  # it would have been


def test_embedded_config_when_resumed(tiny, embedded):
    cfg = tiny({"train_cfg.max_iters": 3, "train_cfg.val_interval": 9})
    assert apis.train(cfg, resume=str(embedded)).iter == 3


def test_embedded_config_of_an_inferencer(embedded, new_run):
    new_run()
    with pytest.raises(ValueError, match="Cannot find the config"):
        DetInferencer(weights=str(embedded), device="cpu")
