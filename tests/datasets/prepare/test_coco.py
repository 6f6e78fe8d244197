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
from ghostdet.datasets.prepare import coco as prepare
from ghostdet.datasets.prepare import download
from ghostdet.errors import UserError

VAL = "val2017.zip"


class Server(HTTPServer):
    """Serves archives in memory; each of ``breaks`` ends one response early."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.breaks, self.statuses = {}, [], []
        self.ranges, self.pages, self.requests = True, False, []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path.rpartition("/")[2], wanted))
        if server.statuses:
            return self.send_error(server.statuses.pop(0))
        if server.pages:
            self.send_response(200)
            self.end_headers()
            return self.wfile.write(b"<html>Please log in</html>")
        content, start = server.files[self.path[1:]], 0
        if wanted and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        self.send_response(206 if start else 200)
        if start:
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + server.breaks.pop(0) if server.breaks else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


def archive(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(f"{folder.name}/", "")
        for path in sorted(folder.iterdir()):
            file.write(path, f"{folder.name}/{path.name}")
    return buffer.getvalue()


@pytest.fixture
def small(coco, monkeypatch):
    """A COCO of few images, whose number is the expected one."""
    for name in ("train2017", "val2017"):
        images = len(list((coco / name).iterdir()))
        part = prepare.PARTS[name]._replace(images=images)
        monkeypatch.setitem(prepare.PARTS, name, part)
    return coco


@pytest.fixture
def server(small, monkeypatch):
    monkeypatch.setattr(download, "WAITS", (0, 0, 0))
    with Server() as server:
        monkeypatch.setattr(prepare, "URL", f"http://127.0.0.1:{server.server_port}")
        for name, part in list(prepare.PARTS.items()):
            content = server.files[part.address] = archive(small / name)
            md5 = hashlib.md5(content).hexdigest()
            part = part._replace(size=len(content), md5=md5)
            monkeypatch.setitem(prepare.PARTS, name, part)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def check_layout(root: Path, project: Path):
    """Check that the COCO config accepts it."""
    cfg = Config.fromfile(project / "configs/_base_/datasets/coco_detection.py")
    for part in ("train", "val"):
        dataset = cfg[f"{part}_dataloader"].dataset
        dataset.data_root = str(root)
        check_dataset(dataset)
    assert {path.name for path in root.iterdir()} == set(prepare.PARTS)


def test_download(server, small, tmp_path, project):
    root = prepare_coco(tmp_path / "a/coco")
    check_layout(root, project)
    for path in small.glob("*2017/*"):
        assert (root / path.relative_to(small)).read_bytes() == path.read_bytes()
    prepare_coco(root)  # is complete
    assert len(server.requests) == 3


def test_continues_after_an_interruption(server, tmp_path):
    server.breaks = [1000, 5, 7000]
    server.statuses = [503]
    prepare_coco(tmp_path, parts=["val2017"])
    ranges = [None, None, "bytes=1000-", "bytes=1005-", "bytes=8005-"]
    assert server.requests == [(VAL, value) for value in ranges]
    assert [path.name for path in tmp_path.iterdir()] == ["val2017"]


def test_another_call_continues(server, tmp_path):
    server.breaks = [5000, *[0] * 4]
    with pytest.raises(UserError, match="to continue at 0 of"):
        prepare_coco(tmp_path, parts=["val2017"])
    partial = tmp_path / f"{VAL}.partial"
    before = partial.read_bytes()
    assert len(before) == 5000
    # Answers that are not the rest of the file.
    for attribute, value in (("pages", True), ("ranges", False)):
        setattr(server, attribute, value)
        with pytest.raises(UserError, match="expected bytes 5000-.* page of a proxy"):
            prepare_coco(tmp_path, parts=["val2017"])
        setattr(server, attribute, not value)
    assert partial.read_bytes() == before
    server.requests.clear()
    prepare_coco(tmp_path, parts=["val2017"])
    assert server.requests == [(VAL, "bytes=5000-")]


def test_another_file(server, tmp_path):
    address = prepare.PARTS["val2017"].address
    content = bytearray(server.files[address])
    content[100] ^= 1
    server.files[address] = bytes(content)
    with pytest.raises(UserError, match="(?s)not the expected file.*Delete it"):
        prepare_coco(tmp_path, parts=["val2017"])
    partial = tmp_path / f"{VAL}.partial"
    assert [*tmp_path.iterdir()] == [partial]
    partial.rename(tmp_path / VAL)
    with pytest.raises(UserError, match=f"{VAL}: not the expected file"):
        prepare_coco(tmp_path, parts=["val2017"])
    (tmp_path / VAL).unlink()
    server.files[address] = b"<html>log in first</html>"
    with pytest.raises(UserError, match="sends 25, expected .* page of a proxy"):
        prepare_coco(tmp_path, parts=["val2017"])
    server.statuses = [404]
    with pytest.raises(UserError, match="Error 404"):
        prepare_coco(tmp_path, parts=["val2017"])


def test_nothing_half_unpacked_has_its_name(server, tmp_path, monkeypatch):
    extract, done = zipfile.ZipFile.extract, []

    def stopped(self, member, folder):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(extract(self, member, folder))

    with monkeypatch.context() as context:
        context.setattr(zipfile.ZipFile, "extract", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare_coco(tmp_path, parts=["val2017"])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {VAL, ".val2017.unpacking"}
    prepare_coco(tmp_path, parts=["val2017"])
    assert [path.name for path in tmp_path.iterdir()] == ["val2017"]


def test_full_disk(server, tmp_path, monkeypatch):
    sizes = [part.size for part in prepare.PARTS.values()]
    usage = shutil.disk_usage(tmp_path)
    free = sum(sizes) + max(sizes) - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    with pytest.raises(UserError, match="GB are needed.*--link"):
        prepare_coco(tmp_path)
    assert not server.requests
    free += 1
    prepare_coco(tmp_path)


def test_links(small, tmp_path, project):
    root = prepare_coco(tmp_path / "coco", link=small)
    check_layout(root, project)
    assert all((root / name).samefile(small / name) for name in prepare.PARTS)
    prepare_coco(root, link=small)


def test_refuses_what_is_not_coco(small, tmp_path):
    (tmp_path / "half/train2017").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        prepare_coco(tmp_path / "coco", link=tmp_path / "half")
    for text in ("annotations: cannot be read", "train2017: has 0 images, expected 12"):
        assert text in caught.value.text
    assert not (tmp_path / "coco").exists()
    with pytest.raises(UserError, match="half/train2017: has 0 images"):
        prepare_coco(tmp_path / "half")
    with pytest.raises(UserError, match="not test2017"):
        prepare_coco(tmp_path, parts=["test2017"])
