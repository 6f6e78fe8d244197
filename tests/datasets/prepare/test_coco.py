"""COCO from a local server that breaks off, lies and runs out of disk."""

import hashlib
import io
import re
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from mmengine.config import Config

from ghostdet.checks import check_dataset
from ghostdet.datasets import prepare_coco
from ghostdet.datasets.prepare import coco, download
from ghostdet.errors import UserError

ARCHIVES = {part.address: name for name, part in coco.PARTS.items()}


class Server(HTTPServer):
    """Serves archives in memory; each of ``breaks`` ends one response early."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.breaks, self.statuses = {}, [], []
        self.ranges, self.requests = True, []
        self.pages, self.shifts = False, []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path.rpartition("/")[2], wanted))
        if server.statuses:
            return self.send_error(server.statuses.pop(0))
        content = server.files[self.path[1:]]
        start = 0
        if wanted and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        if server.pages:
            self.send_response(200)
            self.end_headers()
            return self.wfile.write(b"<html>Please log in</html>")
        self.send_response(206 if start else 200)
        if start:
            first = start + server.shifts.pop(0) if server.shifts else start
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + server.breaks.pop(0) if server.breaks else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


def archive(folder: Path, name: str, extra=()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(f"{name}/", "")
        for path in sorted((folder / name).iterdir()):
            file.write(path, f"{name}/{path.name}")
        for member in extra:
            file.writestr(member, "hostile")
    return buffer.getvalue()


def publish(server, monkeypatch, name, content):
    """Serve an archive, and expect it."""
    part = coco.PARTS[name]
    server.files[part.address] = content
    changed = part._replace(size=len(content), md5=hashlib.md5(content).hexdigest())
    monkeypatch.setitem(coco.PARTS, name, changed)


@pytest.fixture
def small(coco, monkeypatch):
    """COCO's counts are those of the 128 and 50 images at hand."""
    for name in ("train2017", "val2017"):
        images = len(list((coco / name).iterdir()))
        part = coco.PARTS[name]._replace(images=images)
        monkeypatch.setitem(coco.PARTS, name, part)
    return coco


@pytest.fixture
def server(small, monkeypatch):
    monkeypatch.setattr(download, "WAITS", (0, 0, 0))
    with Server() as server:
        monkeypatch.setattr(coco, "URL", f"http://127.0.0.1:{server.server_port}")
        for name in coco.PARTS:
            publish(server, monkeypatch, name, archive(small, name))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def check_layout(root: Path):
    """The COCO config accepts it."""
    cfg = Config.fromfile(
        Path(__file__).parents[3] / "configs/_base_/datasets/coco_detection.py"
    )
    for part in ("train", "val"):
        dataset = cfg[f"{part}_dataloader"].dataset
        dataset.data_root = str(root)
        check_dataset(dataset)
    assert {path.name for path in root.iterdir()} == set(coco.PARTS)


def test_downloads_and_is_done(server, small, tmp_path):
    root = prepare_coco(tmp_path / "a/coco")
    check_layout(root)
    for path in small.glob("*2017/*"):
        assert (root / path.relative_to(small)).read_bytes() == path.read_bytes()
    done = len(server.requests)
    prepare_coco(root)
    assert len(server.requests) == done == 3


def test_goes_on_where_it_broke_off(server, tmp_path):
    server.breaks = [1000, 5, 70_000]
    server.statuses = [503]
    prepare_coco(tmp_path, parts=["val2017"])
    assert server.requests == [
        ("val2017.zip", None),
        ("val2017.zip", None),
        ("val2017.zip", "bytes=1000-"),
        ("val2017.zip", "bytes=1005-"),
        ("val2017.zip", "bytes=71005-"),
    ]
    assert len(list((tmp_path / "val2017").iterdir())) == coco.PARTS["val2017"].images


def test_another_call_goes_on(server, tmp_path):
    server.breaks = [5000, *[0] * 4]
    with pytest.raises(UserError, match="go on at 0 of"):
        prepare_coco(tmp_path, parts=["val2017"])
    assert (tmp_path / "val2017.zip.partial").stat().st_size == 5000
    server.requests.clear()
    prepare_coco(tmp_path, parts=["val2017"])
    assert server.requests == [("val2017.zip", "bytes=5000-")]


def test_what_has_arrived_is_kept(server, tmp_path):
    """From a portal's page of no stated length, and from another part of the file."""
    server.breaks = [5000, *[0] * 4]
    with pytest.raises(UserError):
        prepare_coco(tmp_path, parts=["val2017"])
    partial = tmp_path / "val2017.zip.partial"
    before = partial.read_bytes()
    server.pages = True
    with pytest.raises(UserError, match="unknown length, perhaps a proxy's page"):
        prepare_coco(tmp_path, parts=["val2017"])
    server.pages, server.shifts = False, [1] * 9
    with pytest.raises(UserError, match="asked for bytes 5000-, got bytes 5001-"):
        prepare_coco(tmp_path, parts=["val2017"])
    assert partial.read_bytes() == before and len(before) == 5000
    server.shifts.clear()
    prepare_coco(tmp_path, parts=["val2017"])


def test_begins_again_without_ranges(server, tmp_path):
    server.ranges, server.breaks = False, [1000]
    prepare_coco(tmp_path, parts=["annotations"])
    assert server.requests[1] == ("annotations_trainval2017.zip", "bytes=1000-")
    assert (tmp_path / "annotations/instances_val2017.json").is_file()


def test_keeps_archives(server, tmp_path):
    prepare_coco(tmp_path, parts=["annotations"], keep_archives=True)
    assert (tmp_path / "annotations_trainval2017.zip").is_file()
    shutil.rmtree(tmp_path / "annotations")
    server.requests.clear()
    prepare_coco(tmp_path, parts=["annotations"])
    assert not server.requests


def test_another_file(server, tmp_path):
    address = coco.PARTS["val2017"].address
    content = bytearray(server.files[address])
    content[100] ^= 1
    server.files[address] = bytes(content)
    with pytest.raises(UserError, match="(?s)not the file that.*It was deleted"):
        prepare_coco(tmp_path, parts=["val2017"])
    assert not list(tmp_path.iterdir())
    server.files[address] = b"<html>log in first</html>"
    with pytest.raises(UserError, match="25 bytes, expected .* a page of a proxy"):
        prepare_coco(tmp_path, parts=["val2017"])
    server.statuses = [404]
    with pytest.raises(UserError, match="HTTP 404"):
        prepare_coco(tmp_path, parts=["val2017"])


@pytest.mark.parametrize(
    "member", ["../evil", "/evil", "val2017/../../evil", "other/evil", "val2017\\evil"]
)
def test_hostile_names(server, small, tmp_path, monkeypatch, member):
    publish(server, monkeypatch, "val2017", archive(small, "val2017", [member]))
    with pytest.raises(UserError, match="evil.*Nothing was unpacked"):
        prepare_coco(tmp_path / "root", parts=["val2017"])
    assert not list(tmp_path.rglob("*evil*"))
    assert {path.name for path in (tmp_path / "root").iterdir()} == {"val2017.zip"}


def test_nothing_half_unpacked_has_its_name(server, tmp_path, monkeypatch):
    extract, done = zipfile.ZipFile.extract, []

    def stopped(self, member, folder):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(extract(self, member, folder))

    with monkeypatch.context() as context:
        context.setattr(zipfile.ZipFile, "extract", stopped)
        # As a killed process leaves it.
        context.setattr(coco.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            prepare_coco(tmp_path, parts=["val2017"])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"val2017.zip", ".val2017.unpacking"}
    prepare_coco(tmp_path, parts=["val2017"])
    assert [path.name for path in tmp_path.iterdir()] == ["val2017"]


def test_full_disk(server, tmp_path, monkeypatch):
    size = sum(part.size for part in coco.PARTS.values())
    largest = max(part.size for part in coco.PARTS.values())
    usage = shutil.disk_usage(tmp_path)
    free = size + largest - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    with pytest.raises(UserError, match="GB are needed.*--link"):
        prepare_coco(tmp_path)
    assert not server.requests
    free += 1
    prepare_coco(tmp_path)


def test_links(small, tmp_path):
    root = prepare_coco(tmp_path / "coco", link=small)
    check_layout(root)
    assert all((root / name).samefile(small / name) for name in coco.PARTS)
    prepare_coco(root, link=small)


def test_refuses_what_is_not_coco(small, tmp_path):
    (tmp_path / "half/train2017").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        prepare_coco(tmp_path / "coco", link=tmp_path / "half")
    for text in ("annotations: cannot be read", "train2017: has 0 images, expected 12"):
        assert text in caught.value.text
    assert not (tmp_path / "coco").exists()
    with pytest.raises(UserError, match="so it is not COCO's"):
        prepare_coco(tmp_path / "half", link=small)
    with pytest.raises(UserError, match="not test2017"):
        prepare_coco(tmp_path, parts=["test2017"])
