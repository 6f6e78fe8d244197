"""Files that would run code or fill the memory, through every way into the tools."""

import io
import json
import pickle
import runpy
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from ghostdet.apis import train
from ghostdet.config import load_config
from ghostdet.errors import UserError
from ghostdet.weights import pickles

CONFIG = Path(__file__).parents[2] / "configs/bccd/retinanet_ghostnet_small_bccd.py"


class Payload:
    """Pickled, it leaves a file when it is opened."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def torch_pickle(path, payload):
    torch.save({"state_dict": {}, "x": payload}, path)


def old_pickle(path, payload):
    torch.save({"x": payload}, path, _use_new_zipfile_serialization=False)


def plain_pickle(path, payload):
    path.write_bytes(pickle.dumps({"state_dict": {}, "x": payload}))


def tar(path, payload):
    """A checkpoint of torch before 2016, a member of which is sparse: 1 TB of zeros."""
    content = pickle.dumps({"x": payload})
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        archive.addfile(tarfile.TarInfo("storages"))
        member = tarfile.TarInfo("tensors")
        member.pax_headers = {"GNU.sparse.realsize": str(2**40)}
        archive.addfile(member)


def rewritten(path, payload, change, compression=zipfile.ZIP_STORED):
    """A checkpoint with a payload, of which each record is changed."""
    with_payload = io.BytesIO()
    torch.save({"a": torch.ones(4), "x": payload}, with_payload)
    with (
        zipfile.ZipFile(with_payload) as old,
        zipfile.ZipFile(path, "w", compression, compresslevel=1) as new,
    ):
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


ZEROS = bytes(2**26)


def compressed_storage(path, payload):
    def change(name, content):
        return ZEROS if name.endswith("data/0") else content

    rewritten(path, payload, change, zipfile.ZIP_DEFLATED)


def compressed_version(path, payload):
    """Torch reads this record as soon as it sees the archive."""

    def change(name, content):
        return ZEROS if name.endswith("/version") else content

    rewritten(path, payload, change, zipfile.ZIP_DEFLATED)


def directory(path, payload, change):
    """A checkpoint, the directory at the end of which is changed, entry by entry."""
    rewritten(path, payload, lambda _, content: content)
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entries = content[start:end].split(b"PK\x01\x02")[1:]
    changed = b"".join(b"PK\x01\x02" + entry for entry in change(entries))
    count = changed.count(b"PK\x01\x02")
    tail = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(changed), start, 0
    )
    path.write_bytes(content[:start] + changed + tail)


def declared_size(path, payload):
    """Every record says that it has 4 GB, of which none is there."""

    def change(entries):
        size = struct.pack("<2L", 2**32 - 2, 2**32 - 2)
        return [entry[:16] + size + entry[24:] for entry in entries]

    directory(path, payload, change)


def overlapping(path, payload):
    """A thousand records that are the same bytes."""

    def change(entries):
        end = 42 + int.from_bytes(entries[0][24:26], "little")  # of its name
        start, rest = entries[0][: end - 3], entries[0][end:]
        return [*entries, *(start + b"%03d" % i + rest for i in range(1000))]

    directory(path, payload, change)


def large_storage(path, payload):
    """Of the old format: a tensor of 1 TB, none of which is there."""
    plain = io.BytesIO()
    content = {"a": torch.ones(119), "x": payload}
    torch.save(content, plain, _use_new_zipfile_serialization=False)
    count, more = b"K\x77", b"\x8a\x06" + (2**38).to_bytes(6, "little")
    assert plain.getvalue().count(count) > 1
    path.write_bytes(plain.getvalue().replace(count, more))


def growing_pickle(path, payload):
    """Five thousand arrays of the same bytes, of which the file has one copy."""
    shared = np.zeros(2**20, np.uint8).__reduce__()
    state = shared[2]

    class Again:
        def __reduce__(self):
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state

    path.write_bytes(pickle.dumps([Again() for _ in range(5000)], protocol=2))


def endless_pickle(path, payload):
    """Ten million lists, one byte each."""
    path.write_bytes(b"\x80\x02(" + b"]" * 10_000_000 + b"l.")


def stated_length(path, payload):
    """A bytearray of 3 GB, of which the file has one byte."""
    path.write_bytes(b"\x80\x05\x96" + struct.pack("<Q", 3 * 10**9) + b"x.")


def expanded_tensor(path, payload):
    """One number, 400 million times."""
    torch.save({"a": torch.zeros(1).expand(400_000_000)}, path)


def absurd_header(path, payload):
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")


def absurd_tensor(path, payload):
    tensor = dict(dtype="F32", shape=[2**38], data_offsets=[0, 2**40])
    header = json.dumps({"a": tensor}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


CODE, MEMORY, OTHER = (
    "more than weights: pathlib",
    "fill the memory",
    "cannot be read as",
)
FILES = {  # and why they are refused
    ("a.pth", torch_pickle): CODE,
    ("a.pth", old_pickle): CODE,
    ("a.pth", plain_pickle): CODE,
    ("a.pdparams", plain_pickle): CODE,
    ("a.safetensors", plain_pickle): OTHER,
    ("a.pth", tar): OTHER,
    ("a.pth", compressed_storage): MEMORY,
    ("a.pth", compressed_version): MEMORY,
    ("a.pth", declared_size): MEMORY,
    ("a.pth", overlapping): MEMORY,
    ("a.pth", large_storage): MEMORY,
    ("a.pdparams", growing_pickle): MEMORY,
    ("a.pdparams", endless_pickle): MEMORY,
    ("a.pdparams", stated_length): OTHER,
    ("a.pth", expanded_tensor): MEMORY,
    ("a.safetensors", absurd_header): OTHER,
    ("a.safetensors", absurd_tensor): OTHER,
}
NAMES = {f"{make.__name__}{Path(n).suffix}": why for (n, make), why in FILES.items()}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder of all of them, and the file that none of them may leave."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, make in FILES:
        path = folder / f"{make.__name__}{Path(name).suffix}"
        make(path, Payload(folder / "marker"))
    return folder, folder / "marker"


@pytest.fixture
def tool(project, monkeypatch, capsys):
    """A function that runs a tool here, and returns its exit code and message."""
    monkeypatch.syspath_prepend(project / "tools")

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        code = 0
        try:
            runpy.run_path(str(project / f"tools/{name}.py"), run_name="__main__")
        except SystemExit as error:
            code = error.code
        return code, capsys.readouterr().err

    return run


def test_payload_would_run(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("way", ["test", "resume", "load_from", "inspect", "infer"])
def test_tools_refuse(hostile, tool, cells, tmp_path, monkeypatch, way):
    folder, marker = hostile
    # For time: the config is read once, and less of the endless pickle.
    cfg = load_config(CONFIG)
    monkeypatch.setattr("mmengine.config.Config.fromfile", lambda _: cfg)
    monkeypatch.setattr(pickles, "STEPS", 10_000)
    image = min((cells / "images").iterdir())
    data = ("--data-root", cells, "--work-dir", tmp_path / "run")
    for path in sorted(folder.iterdir()):
        arguments = {
            "test": ("test", CONFIG, path, *data),
            "resume": ("train", CONFIG, *data, "--resume", path),
            "load_from": ("train", CONFIG, *data, "--cfg-options", f"load_from={path}"),
            "inspect": ("weights", "inspect", path),
            "infer": (
                *("infer", image, "--config", CONFIG, "--checkpoint", path),
                *("--out", tmp_path / "out"),
            ),
        }[way]
        code, message = tool(*arguments)
        assert code == 1, path
        message = message[message.index("error: ") :]
        assert str(path) in message and len(message) < 600, path
        assert NAMES[path.name] in message
    assert not marker.exists()


def test_mmengine_refuses(hostile, monkeypatch):
    folder, marker = hostile
    monkeypatch.setattr(pickles, "STEPS", 10_000)
    for path in folder.iterdir():
        with pytest.raises(UserError, match=NAMES[path.name]):
            CheckpointLoader.load_checkpoint(str(path), "cpu", logger=None)
    assert not marker.exists()


PEAKS = """
import re, sys, torch
from pathlib import Path
from ghostdet.errors import UserError
from ghostdet.weights import pickles
from ghostdet.weights.checkpoint import read_file

pickles.STEPS //= 4  # for time

def peak():
    # Of getrusage, the peak of the process that started this one would count.
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s*(\\d+)", text)[1]) // 1024

for name in sys.argv[1:]:
    before = peak()
    try:
        if name.endswith("control.pth"):
            torch.load(name)
        else:
            read_file(Path(name))
        print("read", name)
    except (UserError, RuntimeError):
        print(peak() - before, name)
"""


# Opcodes that state how many bytes follow, and the form of that number.
LENGTHS = {
    **dict.fromkeys(["FRAME", "BINBYTES8", "BINUNICODE8", "BYTEARRAY8"], "<Q"),
    **dict.fromkeys(["BINBYTES", "BINUNICODE"], "<I"),
    **dict.fromkeys(["BINSTRING", "LONG4"], "<i"),
}


def test_memory(hostile, command, tmp_path):
    """In a process of its own, for its peak; with torch.load to show that it counts."""
    folder, _ = hostile
    paths = sorted(folder.iterdir(), key=lambda path: path.stem == "endless_pickle")
    compressed_version(tmp_path / "control.pth", 0)
    for name, form in LENGTHS.items():
        path = tmp_path / f"{name}.pdparams"
        stated = struct.pack(form, 2**31 - 1)
        path.write_bytes(b"\x80\x05" + getattr(pickle, name) + stated + b"x.")
        paths.insert(0, path)
    result = command("-c", PEAKS, *paths, tmp_path / "control.pth")
    assert result.returncode == 0, result.stderr
    *lines, last, control = (line.split() for line in result.stdout.splitlines())
    assert len(lines) == len(FILES) - 1 + len(LENGTHS)
    assert all(int(megabytes) < 50 for megabytes, _ in lines), lines
    assert int(last[0]) < 125  # 500,000 objects and their notes
    assert int(control[0]) > 200  # the same kind of file


def test_published_weights(trained, tool, cells, tmp_path, monkeypatch):
    """Written and used by the tools, until somebody else has written beside them."""
    monkeypatch.chdir(tmp_path)
    weights, description = tmp_path / "a.safetensors", tmp_path / "a.json"
    image = min((cells / "images").iterdir())
    arguments = ("publish", trained / "iter_4.pth", weights, "--config", CONFIG)
    assert tool("weights", *arguments)[0] == 0
    detect = ("infer", image, "--checkpoint", weights, "--out", tmp_path / "out")
    assert tool(*detect)[0] == 0
    assert (tmp_path / "out" / image.name).is_file()
    content = json.loads(description.read_text())
    nms = content["config"]["model"]["test_cfg"]["nms"]
    nms["type"] = "__import__('pathlib').Path('marker').touch()"  # mmcv evaluates it
    description.write_text(json.dumps(content))
    evaluate = ("test", description, weights, "--data-root", cells)
    for arguments in (detect, evaluate):
        code, message = tool(*arguments)
        assert code == 1
        assert f"error: {description}: model.test_cfg.nms.type is" in message
    assert not (tmp_path / "marker").exists()
    code, message = tool("infer", image, "--checkpoint", trained / "iter_4.pth")
    assert code == 2 and "--config is needed for all but published" in message


@pytest.fixture
def embedded(trained, tmp_path):
    """A checkpoint with configs that leave a file, wherever one is read from."""
    marker = tmp_path / "marker"
    text = f"a = open({str(marker)!r}, 'w').close()\n"
    content = torch.load(trained / "iter_2.pth", weights_only=False)
    content["meta"].update(config=text, cfg=text)
    content["message_hub"]["runtime_info"]["cfg"] = text
    torch.save(content, tmp_path / "a.pth")
    yield tmp_path / "a.pth"
    assert not marker.exists()
    Config.fromstring(text, file_format=".py")
    assert marker.exists()  # it would have been


def test_embedded_config_when_resumed(tiny, embedded):
    cfg = tiny({"train_cfg.max_iters": 3, "train_cfg.val_interval": 9})
    assert train(cfg, resume=str(embedded)).iter == 3


def test_embedded_config_of_an_inferencer(embedded, new_run):
    new_run()
    with pytest.raises(ValueError, match="Cannot find the config"):
        DetInferencer(weights=str(embedded), device="cpu")
