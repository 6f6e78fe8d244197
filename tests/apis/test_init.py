import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from ghostdet.apis.init import OWN, init_project
from ghostdet.checks import check_run
from ghostdet.config import load_config
from ghostdet.errors import UserError


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No network, at once: the Hub's client tries for 20 seconds."""

    def fetch(name):
        raise UserError(f"{name} cannot be downloaded; give its path")

    monkeypatch.setattr("ghostdet.apis.init.fetch", fetch)


@pytest.fixture
def pets(tmp_path):
    """A function that writes images, each its own, with objects in labelme's form."""

    def write(objects, same=()):
        root = tmp_path / "pets"
        root.mkdir()
        for i, (name, labels) in enumerate(objects.items()):
            pixels = np.random.default_rng(0 if name in same else i + 1)
            pixels = pixels.integers(0, 255, (6, 8, 3), np.uint8)
            image = Image.fromarray(pixels).resize((160, 120), Image.Resampling.NEAREST)
            image.save(root / f"{name}.png")
            shapes = [
                dict(
                    label=label,
                    points=[[j, 9], [j + 40, 50]],
                    shape_type="rectangle",
                )
                for j, label in enumerate(labels)
            ]
            content = dict(imagePath=f"{name}.png", shapes=shapes)
            (root / f"{name}.json").write_text(json.dumps(content))
        return root

    return write


TEN = {f"{i}": ["cat", "dog"] for i in range(10)}


@pytest.mark.parametrize("model", OWN)
def test_what_is_written_trains(cells, tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    cfg, said, warnings = init_project("cells", cells, model, epochs=10)
    assert cfg.train_cfg.max_iters == 15  # of 12 images in batches of 8
    assert "starts from random weights: " in said[-2]
    assert "cannot be downloaded" in said[-2]
    text = (tmp_path / "cells.py").read_text()
    assert len(text.splitlines()) <= 15
    for part in ("train", "val", "test"):
        before = json.loads((cells / f"annotations/{part}.json").read_text())
        after = COCO(f"cells/{part}.json").dataset
        names = [{c["id"]: c["name"] for c in d["categories"]} for d in (before, after)]
        counts = [
            Counter(names[i][a["category_id"]] for a in d["annotations"])
            for i, d in enumerate((before, after))
        ]
        assert counts[0] == counts[1]
        assert [a["id"] for a in after["annotations"]] == [
            *range(1, len(after["annotations"]) + 1)
        ]
    assert cfg.test_evaluator.ann_file == "cells/test.json"
    if model == "s":
        findings = check_run(cfg, quick=True)
        assert {f.status for f in findings} == {"pass"}, findings


def test_minutes(cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg, _, _ = init_project("cells", cells, minutes=1e5)
    assert cfg.train_cfg.max_iters == pytest.approx(300 * 12 / 8, rel=0.1)


def test_images_are_held_out(pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {**TEN, "a.rf.1": ["cat"], "a.rf.2": ["cat"], "x": ["dog"], "y": ["dog"]}
    root = pets(names, same=("x", "y"))
    parts = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        init_project(name, root, epochs=1, seed=seed)
        held = json.loads((tmp_path / name / "val.json").read_text())["images"]
        parts.append({image["file_name"] for image in held})
    assert parts[0] == parts[1] != parts[2]
    for part in parts:
        assert 3 <= len(part) <= 4
        for pair in ({"a.rf.1.png", "a.rf.2.png"}, {"x.png", "y.png"}):
            assert pair <= part or not pair & part
    assert not (tmp_path / "one/test.json").exists()


def test_many_classes_are_a_file(pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"class number {i}, 猫" for i in range(80)]
    root = pets({f"{i}": [*names, names[0]] for i in range(3)})
    cfg, _, _ = init_project("many", root, epochs=1)
    assert cfg.model.bbox_head.num_classes == 80
    assert cfg.val_dataloader.dataset.metainfo.classes == tuple(sorted(names))
    assert len((tmp_path / "many.py").read_text().splitlines()) <= 15


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ({**TEN, "z": []}, "1 images have no object, and are background"),
        ({**TEN, "z": ["ant"]}, "class 'ant' has one object in"),
        ({**TEN, "z": ["Cat", "Cat"]}, "classes Cat, cat differ only in spelling"),
    ],
)
def test_warnings(pets, tmp_path, monkeypatch, objects, said):
    monkeypatch.chdir(tmp_path)
    _, _, warnings = init_project("pets2", pets(objects), epochs=1)
    assert any(said in warning for warning in warnings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(name="there"), "there.py exists; give another name"),
        (dict(name="pets"), "pets exists; give another name"),
        (dict(model="x"), "--model is 'x', expected s, m, l, retinanet, faster-rcnn"),
        (dict(minutes=0), "--minutes or --epochs is 0, expected"),
        (dict(epochs=-1), "is -1, expected"),
        (dict(minutes=float("nan")), "is nan, expected"),
        (dict(name="."), "NAME is '.', expected a name"),
    ],
)
def test_bad(pets, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.py").touch()
    root = pets(TEN)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        init_project(**{"name": "new", "data": root, **arguments})
    assert sorted(tmp_path.rglob("*")) == before


def test_damaged_image(pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = pets(TEN)
    for name, kept in (("3.png", 200), ("4.jpg", 900)):
        path = root / name
        Image.open(path.with_suffix(".png")).save(path)
        path.write_bytes(path.read_bytes()[:kept])
    (root / "4.png").unlink()
    _, _, warnings = init_project("new.py", root, epochs=1e-3)
    assert warnings[0].startswith("1 images cannot be read, and are left out, such as")
    assert (
        warnings[2] == f"1 images are damaged; restore or remove them, such as {path}"
    )
    assert load_config(tmp_path / "new.py").train_cfg.max_iters == 2


def test_parts_that_leave_nothing_to_train_on(pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = pets(TEN)
    root.rename(tmp_path / "val")
    _, said, warnings = init_project("new", tmp_path, epochs=1)
    assert "parts are ignored, as none is for training, such as val" in warnings[0]
    assert "8 images" in said[1] and "2 images" in said[2]


def test_parts_without_objects(pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = pets({**TEN, "a": [], "b": []})
    (root / "test").mkdir()
    for path in [*root.glob("a.*"), *root.glob("b.*")]:
        path.rename(root / "test" / path.name)
    _, said, warnings = init_project("new", root, epochs=1)
    assert "8 images" in said[1] and "2 images" in said[2] and "test" not in said[3]
    assert warnings[0].startswith("2 images are in a part without any object, and")


def test_nothing_is_left_of_an_interrupted_start(pets, tmp_path, monkeypatch):
    def interrupt(cfg):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ghostdet.apis.init._seconds", interrupt)
    root = pets(TEN)
    with pytest.raises(KeyboardInterrupt):
        init_project("new", root)
    assert [*tmp_path.iterdir()] == [root]


def test_a_few_of_many_copies_are_held_out(pets, tmp_path, monkeypatch):
    """A group of equal images is not held out if it is larger than the share."""
    monkeypatch.chdir(tmp_path)
    names = [f"{i}" for i in range(20)]
    root = pets(dict.fromkeys(names, ["cat", "dog"]), same=names[:9])
    for seed in range(4):
        _, said, _ = init_project(f"new{seed}", root, epochs=1e-3, seed=seed)
        assert "4 images" in said[2]


def test_images_in_no_part(pets, tmp_path, monkeypatch):
    """Whole photographs beside tiles of them, for example."""
    monkeypatch.chdir(tmp_path)
    root = pets(TEN)
    for name, folder in (("0", "train"), ("1", "val")):
        (root / folder).mkdir()
        for path in root.glob(f"{name}.*"):
            path.rename(root / folder / path.name)
    _, said, warnings = init_project("new", root, epochs=1)
    assert "1 images" in said[1] and "1 images" in said[2]
    assert warnings[0].startswith("8 images are in no part (train, val or test), and")


def test_one_image_is_not_enough(pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="1 images with objects, and none is left"):
        init_project("new", pets({"a": ["cat"]}))
    assert not (tmp_path / "new.py").exists()
