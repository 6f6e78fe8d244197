import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from torchvision.ops import batched_nms

from ghostdet import apis
from ghostdet.apis import infer
from ghostdet.apis.model import build_model
from ghostdet.config import load_config
from ghostdet.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"


def write_config(path: Path, base: str, text: str) -> Path:
    path.write_text(f"_base_ = '{CONFIGS / base}'\n{text}")
    return path


@pytest.fixture
def config(tmp_path, own_cells) -> Path:
    """The small config with its dataset and every detection."""
    text = (
        "model = dict(test_cfg=dict(score_thr=0.0))\n"
        f"data_root = {str(own_cells) + '/'!r}\n"
        '__import__("ghostdet").derive(globals())'
    )
    return write_config(
        tmp_path / "own.py", "bccd/retinanet_ghostnet_small_bccd.py", text
    )


@pytest.fixture
def images(own_cells) -> Path:
    """The folder of the dataset, with its first three test images."""
    coco = json.loads((own_cells / "annotations/test.json").read_text())
    names = [image["file_name"] for image in coco["images"][:3]]
    for path in (own_cells / "images").iterdir():
        if path.name not in names:
            path.unlink()
    return own_cells / "images"


@pytest.mark.parametrize("amp", [False, True])
def test_same_as_evaluation(tmp_path, tiny, trained, config, images, amp):
    checkpoint = trained / "iter_4.pth"
    detections = json.loads(
        infer(images, config, checkpoint, tmp_path / "o", amp=amp).read_text()
    )
    cfg = tiny({"test_dataloader.dataset.indices": 3})
    apis.test(cfg, checkpoint, out=str(tmp_path / "out.pkl"), amp=amp)
    predictions = pickle.loads((tmp_path / "out.pkl").read_bytes())
    assert len(predictions) == 3
    for prediction in predictions:
        found = [d for d in detections if d["image_id"] == prediction["img_id"]]
        expected = prediction["pred_instances"]
        boxes = np.array([d["bbox"] for d in found])
        boxes[:, 2:] += boxes[:, :2]
        assert boxes == pytest.approx(expected["bboxes"].numpy(), abs=1e-4)
        scores = np.array([d["score"] for d in found])
        assert scores == pytest.approx(expected["scores"].float().numpy(), abs=1e-4)
        labels = [d["category_id"] - 1 for d in found]
        assert labels == expected["labels"].tolist()  # 1, 2, 3 in the file
    if amp:
        plain = infer(images, config, checkpoint, tmp_path / "p").read_text()
        best = [
            max(d["score"] for d in found) for found in (detections, json.loads(plain))
        ]
        assert best[0] != best[1] and best[0] == pytest.approx(best[1], abs=0.02)


def test_no_identifier_of_another(tmp_path, trained, config, own_cells, images):
    """Neither of an image of the same name nor of another category."""
    path = own_cells / "annotations/test.json"
    coco = json.loads(path.read_text())
    coco["categories"] = [dict(id=3, name="WBC"), dict(id=1, name="Other")]
    path.write_text(json.dumps(coco), "utf-16")
    (tmp_path / "cam1").mkdir()
    shutil.copy(min(images.iterdir()), tmp_path / "cam1")
    results = infer(tmp_path / "cam1", config, trained / "iter_4.pth", tmp_path / "out")
    found = json.loads(results.read_text())
    assert not {d["image_id"] for d in found} & {i["id"] for i in coco["images"]}
    ids = {d["category_name"]: d["category_id"] for d in found}
    assert ids.items() <= {"WBC": 3, "RBC": 4, "Platelets": 5}.items() and len(ids) > 1


@pytest.mark.parametrize("content", ["{", "[]", '{"images": []}', '{"images": [1]}'])
def test_annotations_that_cannot_be_read(
    tmp_path, trained, config, own_cells, images, capsys, content
):
    (own_cells / "annotations/test.json").write_text(content)
    results = infer(images, config, trained / "iter_4.pth", tmp_path / "out")
    assert {d["image_id"] for d in json.loads(results.read_text())} == {1, 2, 3}
    assert "test.json is not read as COCO annotations" in capsys.readouterr().out


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()])
def test_results_are_kept(tmp_path, trained, config, images, monkeypatch, error):
    module = sys.modules["ghostdet.apis.infer"]
    detect, (first, second, third) = module.inference_detector, sorted(images.iterdir())
    errors = iter([None, error, None])

    def fail(*args):
        if (raised := next(errors)) is not None:
            raise raised
        return detect(*args)

    monkeypatch.setattr(module, "inference_detector", fail)
    with pytest.raises((UserError, KeyboardInterrupt)) as caught:
        infer(images, config, trained / "iter_4.pth", tmp_path / "out")
    found = json.loads((tmp_path / "out/results.json").read_text())
    names = {first.name}
    if isinstance(error, MemoryError):
        assert f"{second}: not enough memory" in str(caught.value)
        names.add(third.name)
    assert {d["file_name"] for d in found} == names


def test_files_of_a_folder(tmp_path, trained, config, images, capsys):
    first = min(images.iterdir())
    shutil.copy(first, images / "a.jfif")
    (images / "a.txt").touch()
    os.mkfifo(images / "b.jpg")
    results = infer(images, config, trained / "iter_4.pth", tmp_path / "out")
    names = {d["file_name"] for d in json.loads(results.read_text())}
    assert "a.jfif" in names and len(names) == 4
    assert "skipped files that are not images: a.txt, b.jpg" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, content, message",
    [
        (
            "empty",
            None,
            "no image in .*empty; give an image or a folder .*, or a video",
        ),
        ("nowhere.jpg", None, "no image at"),
        ("text.jpg", b"a text", "text.jpg: cannot be read as an image"),
        ("nothing.jpg", b"", "nothing.jpg: cannot be read as an image"),
    ],
)
def test_no_image(tmp_path, trained, config, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    elif not Path(name).suffix:
        (tmp_path / name / "a.jpg").mkdir(parents=True)  # a folder is no image
    with pytest.raises(UserError, match=message):
        infer(tmp_path / name, config, trained / "iter_4.pth", tmp_path / "out")


def test_one_broken_image_among_others(tmp_path, trained, config, images):
    first, *others = sorted(images.iterdir())
    first.write_bytes(first.read_bytes()[:2000])
    with pytest.raises(UserError, match=f"{first.name}: cannot be read as an image"):
        infer(images, config, trained / "iter_4.pth", tmp_path / "out")
    detections = json.loads((tmp_path / "out/results.json").read_text())
    assert {d["file_name"] for d in detections} == {path.name for path in others}


def test_images_are_not_overwritten(trained, config, images):
    content = {path: path.read_bytes() for path in images.iterdir()}
    for given in (images, min(images.iterdir())):
        with pytest.raises(UserError, match="over an image or another picture"):
            infer(given, config, trained / "iter_4.pth", images)
    assert {path: path.read_bytes() for path in images.iterdir()} == content


def test_folders_of_a_folder(tmp_path, trained, config, images):
    """Pictures and names keep them, and earlier results in it are left alone."""
    first, second, _ = sorted(images.iterdir())
    (images / "a/b").mkdir(parents=True)
    shutil.copy(first, images / "a/b" / second.name)
    for _ in range(2):
        results = infer(images, config, trained / "iter_4.pth", images / "out")
    found = json.loads(results.read_text())
    names = {d["file_name"]: d["image_id"] for d in found}
    assert len(names) == len({*names.values()}) == 4
    assert names[f"a/b/{second.name}"] != names[second.name]
    written = results.parent.rglob("*.*")
    written = {path.relative_to(results.parent).as_posix() for path in written}
    assert written == {*names, "results.json"}
    above = infer(results.parent.parent, config, trained / "iter_4.pth", tmp_path)
    assert len({d["file_name"] for d in json.loads(above.read_text())}) == 8


def boxes_of(rows):
    """Rows of score, class and box, in one order for equal scores."""
    return sorted([row["score"], row["category_id"], *row["bbox"]] for row in rows)


def test_tiles(tmp_path, trained, config, images):
    """The tiles' detections, except near inner borders, which may cut objects."""
    image = cv2.imread(str(min(images.iterdir())))[:96, :160]
    cv2.imwrite(str(tmp_path / "whole.png"), image)
    (tmp_path / "tiles").mkdir()
    for x in (0, 64):
        cv2.imwrite(str(tmp_path / f"tiles/{x}.png"), image[:, x : x + 96])
    checkpoint, out = trained / "iter_4.pth", tmp_path / "out"
    cfg = load_config(config, cfg_options={"model.test_cfg.max_per_img": 1000})
    found = infer(tmp_path / "whole.png", cfg, checkpoint, out, tile=96).read_text()
    parts = json.loads(infer(tmp_path / "tiles", cfg, checkpoint, out).read_text())
    found = json.loads(found)
    expected = []
    for d in parts:
        left = int(Path(d["file_name"]).stem)
        x = d["bbox"][0] + d["bbox"][2] / 2
        if x >= 6 if left else x <= 90:  # a quarter of the overlap, 24 px
            d["bbox"][0] += left
            expected.append(d)
    rows = torch.tensor(boxes_of(expected))
    corners = torch.cat([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:]], 1)
    keep = batched_nms(corners, rows[:, 0], rows[:, 1], 0.5).sort().values
    assert 0 < len(keep) < len(expected) < len(parts)
    np.testing.assert_allclose(boxes_of(found), rows[keep], atol=1e-3)
    none = {"model.test_cfg.score_thr": 1.0}
    cfg = load_config(config, cfg_options=none)
    assert not json.loads(infer(images, cfg, checkpoint, out, tile=96).read_text())
    with pytest.raises(UserError, match="--tile is 8, expected 64 px or more"):
        infer(tmp_path / "whole.png", config, checkpoint, out, tile=8)


def test_video(tmp_path, trained, config, images):
    """Frames of a video have the same detections as single images."""
    frames = [cv2.resize(cv2.imread(str(p)), (128, 96)) for p in images.iterdir()]
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (128, 96))
    for number in range(100):
        writer.write(np.roll(frames[number % 3], number, 1))
    writer.release()
    video, few = cv2.VideoCapture(str(path)), {0, 31, 99}
    (tmp_path / "few").mkdir()
    for number in range(100):
        frame = video.read()[1]
        if number in few:
            cv2.imwrite(str(tmp_path / f"few/{number}.png"), frame)
    checkpoint, out = trained / "iter_4.pth", tmp_path / "out"
    rows = infer(path, config, checkpoint, out).read_text().splitlines()
    rows = [json.loads(row) for row in rows]
    single = json.loads(infer(tmp_path / "few", config, checkpoint, out).read_text())
    for number in few:
        expected = [d for d in single if d["file_name"] == f"{number}.png"]
        found = [d for d in rows if d["frame"] == number]
        assert expected
        np.testing.assert_allclose(boxes_of(found), boxes_of(expected), atol=1e-3)
    drawn = cv2.VideoCapture(str(out / "a.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 100
    assert drawn.get(cv2.CAP_PROP_FPS) == 5
    with pytest.raises(UserError, match="--out would write over .*a.mp4; give another"):
        infer(out / "a.mp4", config, checkpoint, out)


def test_scores_of_a_report(tmp_path, trained, config, images, capsys):
    checkpoint, image = trained / "iter_4.pth", min(images.iterdir())
    found = json.loads(infer(image, config, checkpoint, tmp_path / "o").read_text())
    scores = {d["category_name"]: d["score"] for d in found[::-1]}  # the best of each
    rows = [dict(name=name, threshold=score) for name, score in scores.items()]
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps(dict(classes=rows)))
    capsys.readouterr()
    infer(image, config, checkpoint, tmp_path / "o", score_thr=str(figures))
    assert f", {len(rows)} of them drawn" in capsys.readouterr().out
    with pytest.raises(
        UserError, match="--score-thr is 'high' .*, expected a score such"
    ):
        infer(image, config, checkpoint, tmp_path / "o", score_thr="high")


def test_what_cannot_be_used(tmp_path, trained, config, images):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="with --out"):
        infer(images, config, trained / "iter_4.pth", tmp_path / "file/below")
    config.write_text(f"{config.read_text()}\ntest_dataloader = None")
    with pytest.raises(UserError, match="own.py has no test_dataloader"):
        infer(images, config, trained / "iter_4.pth", tmp_path / "out")


@pytest.fixture
def classifier(tmp_path, digit_folders):
    """A config of four folders of digits, and a checkpoint with random weights."""
    path = CONFIGS / "classification/ghostnet_digits.py"
    cfg = load_config(path, tmp_path / "run", cfg_options={"model.head.num_classes": 4})
    steps = cfg.test_dataloader.dataset.pipeline
    steps[0].size = (32, 32)
    root = str(digit_folders / "val")
    cfg.test_dataloader.dataset = dict(type="ImageFolder", root=root, pipeline=steps)
    torch.manual_seed(0)
    content = dict(
        state_dict=build_model(cfg).state_dict(),
        meta=dict(dataset_meta=dict(classes=("n0", "n1", "n2", "n3"))),
    )
    torch.save(content, tmp_path / "a.pth")
    return cfg, tmp_path / "a.pth"


def test_classifier_as_in_evaluation(classifier, tmp_path, capsys, new_run):
    cfg, checkpoint = classifier
    new_run()
    apis.test(cfg, checkpoint, out=str(tmp_path / "out.pkl"))
    rows = pickle.loads((tmp_path / "out.pkl").read_bytes())[:3]
    capsys.readouterr()
    folder = Path(rows[0]["img_path"]).parent
    results = infer(folder, cfg, checkpoint, tmp_path / "out")
    shown = capsys.readouterr().out
    found = json.loads(results.read_text())
    assert [f["file_name"] for f in found] == [Path(r["img_path"]).name for r in rows]
    for image, row in zip(found, rows):
        scores, labels = row["pred_score"].sort(descending=True)
        predictions = image["predictions"]
        assert [p["category_id"] for p in predictions] == labels.tolist()
        assert [p["category_name"] for p in predictions] == [f"n{i}" for i in labels]
        assert [p["score"] for p in predictions] == pytest.approx(scores.tolist())
        assert f"{image['file_name']}: n{labels[0]} {scores[0]:.1%}, " in shown
    assert list((tmp_path / "out").iterdir()) == [results]  # and no pictures
    results = infer(folder, cfg, checkpoint, tmp_path / "out", amp=True)
    amp = json.loads(results.read_text())[0]["predictions"][0]["score"]
    plain = found[0]["predictions"][0]["score"]
    assert amp != plain and amp == pytest.approx(plain, abs=0.02)


def test_classifier_of_unknown_classes_and_a_broken_image(classifier, tmp_path):
    cfg, checkpoint = classifier
    torch.save(torch.load(checkpoint)["state_dict"], checkpoint)
    folder = Path(cfg.test_dataloader.dataset.root, "n1")
    broken, *others = sorted(folder.iterdir())
    broken.write_bytes(b"a text")
    with pytest.raises(UserError, match=f"{broken.name}: cannot be read as an image"):
        infer(folder, cfg, checkpoint, tmp_path / "out")
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert [image["file_name"] for image in found] == [path.name for path in others]
    names = {p["category_name"] for p in found[0]["predictions"]}
    assert names == {"0", "1", "2", "3"}


def test_inferencer_of_mmdetection(tmp_path, trained, config, images):
    path = min(images.iterdir())
    inferencer = DetInferencer(
        model=str(config),
        weights=str(trained / "iter_4.pth"),
        device="cpu",
        show_progress=False,
    )
    (prediction,) = inferencer(str(path), out_dir=str(tmp_path / "mmdet"))[
        "predictions"
    ]
    results = infer(path, config, trained / "iter_4.pth", tmp_path / "out")
    detections = json.loads(results.read_text())
    scores = [d["score"] for d in detections]
    assert scores == pytest.approx(prediction["scores"], abs=1e-4)
    assert (tmp_path / "mmdet/vis" / path.name).is_file()
