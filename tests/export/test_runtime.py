"""The runtime module sees what MMDetection's pipeline and preprocessor give."""

import json
import os
import pickle
import random
import subprocess
import sys
from contextlib import suppress

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmdet.structures.bbox import scale_boxes

from ghostdet import runtime
from ghostdet.runtime import Detector, DetectorError, checksum, colors_of, draw, main

RESIZES = [
    dict(scale=[256, 256], keep_ratio=False),
    dict(scale=[1333, 800], keep_ratio=True),
    dict(scale=[320, 320], keep_ratio=True),
    None,
]
MEAN = [123.675, 116.28, 103.53]
STD = [58.395, 57.12, 57.375]
PARTS = np.array([[0, 0, 1, 1], [0.125, 0.25, 0.5, 0.625], [0.25, 0.25, 0.75, 1]])


def mmdetection(path, resize, to_rgb=True, mean=MEAN, std=STD):
    """The normalised image, float32 (1, 3, H, W), and its sample."""
    transforms = [
        dict(type="mmdet.LoadImageFromFile"),
        dict(
            type="mmdet.PackDetInputs",
            meta_keys=("ori_shape", "img_shape", "scale_factor"),
        ),
    ]
    if resize is not None:
        resize = {**resize, "scale": tuple(resize["scale"])}
        transforms.insert(1, dict(type="mmdet.Resize", **resize))
    data = Compose(transforms)(dict(img_path=str(path), img_id=0))
    preprocessor = MODELS.build(
        dict(type="mmdet.DetDataPreprocessor", mean=mean, std=std, bgr_to_rgb=to_rgb)
    )
    batch = preprocessor(
        dict(inputs=[data["inputs"]], data_samples=[data["data_samples"]])
    )
    return batch["inputs"].numpy(), batch["data_samples"][0]


def seen(detector, image):
    """What the network gets to see of an image."""
    images = []
    detector.infer = lambda image: (
        images.append(image) or Detector.infer(detector, image)
    )
    try:
        detections = detector(image)
    finally:
        del detector.infer
    return images[0], detections


def check(detector, image, path, resize, **numbers):
    """Compare network input and boxes with those of MMDetection for the file."""
    expected, sample = mmdetection(path, resize, **numbers)
    batch, detections = seen(detector, image)
    assert batch.dtype == np.float32 and batch.flags.c_contiguous
    np.testing.assert_array_equal(batch, expected)
    levels = 1 / (1 + np.exp(-expected[0].astype(np.float64).mean((1, 2))))
    order = np.argsort(-levels)
    np.testing.assert_allclose(detections.scores, levels[order], atol=1e-3)
    assert detections.labels.dtype == np.int64
    if np.diff(np.sort(levels)).min() > 2e-3:
        assert detections.labels.tolist() == order.tolist()
    assert detections.names == [detector.classes[i] for i in detections.labels]
    height, width = sample.img_shape
    boxes = (PARTS * [width, height, width, height]).astype(np.float32)
    if resize is not None:
        scale = [1 / factor for factor in sample.scale_factor]
        boxes = scale_boxes(torch.from_numpy(boxes), scale).numpy()
    assert detections.boxes.dtype == np.float32
    np.testing.assert_array_equal(detections.boxes, boxes)
    size = np.array(sample.ori_shape)[::-1]
    np.testing.assert_allclose(detections.boxes[0, 2:], size, rtol=1e-6)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_same_as_mmdetection(export, coco, resize, suffix):
    """On photographs of all shapes, the grey one among them."""
    detector = Detector(export(suffix, resize=resize), threads=1)
    names = sorted(coco.glob("*2017/*.jpg"))
    grey = [p for p in names if cv2.imread(p, cv2.IMREAD_UNCHANGED).ndim == 2]
    assert grey
    for path in [*grey, *names[::40]]:
        check(detector, path, path, resize)
        check(detector, cv2.imread(path), path, resize)


@pytest.mark.parametrize(
    "numbers",
    [dict(to_rgb=False), dict(mean=[127], std=[50.5]), dict(mean=[0, 0, 0])],
    ids=str,
)
def test_normalization(export, cells, numbers):
    path = min((cells / "images").iterdir())
    check(Detector(export(**numbers)), path, path, RESIZES[0], **numbers)


KINDS = {
    "color": lambda image: image,
    "grey": lambda image: image[:, :, 0],
    "grey, one channel": lambda image: image[:, :, :1],
    "alpha": lambda image: np.dstack([image, image[:, :, 1]]),
    "16 bits": lambda image: image.astype(np.uint16) * 250 + 77,
    "16 bits, alpha": lambda image: (
        np.dstack([image, image[:, :, 1]]).astype(np.uint16) * 200
    ),
    "16 bits, grey": lambda image: image[:, :, 0].astype(np.uint16) * 200,
    "one pixel": lambda image: image[:1, :1],
    "one pixel wide": lambda image: image[:7, :1],
    "one pixel high": lambda image: image[:1, :9],
    "long": lambda image: cv2.resize(image, (3000, 9)),
    "not contiguous": lambda image: image[::-2, ::3, ::-1],
}


@pytest.mark.parametrize("resize", RESIZES[1:], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_images(tmp_path, export, cells, kind, resize):
    image = KINDS[kind](cv2.imread(min((cells / "images").iterdir()))[100:260, :200])
    path = tmp_path / "a.png"
    cv2.imwrite(path, image)
    detector = Detector(export(resize=resize))
    check(detector, path, path, resize)
    check(detector, image, path, resize)


def test_orientation(tmp_path, export, cells):
    """A photograph on its side is turned, as for PyTorch."""
    pillow = pytest.importorskip("PIL.Image")
    path = tmp_path / "a.jpg"
    with pillow.open(min((cells / "images").iterdir())) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.crop((0, 0, 300, 200)).save(path, exif=exif)
    resize = RESIZES[1]
    check(Detector(export(resize=resize)), path, path, resize)
    assert mmdetection(path, resize)[1].ori_shape == (300, 200)


def test_nothing_left_of_the_short_side(export):
    detector = Detector(export(resize=RESIZES[1]))
    with pytest.raises(DetectorError, match="1x5000 px.*less than half a pixel"):
        detector(np.zeros((5000, 1, 3), np.uint8))


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((0, 4, 3), np.uint8), "is empty"),
        (np.zeros((4, 0), np.uint8), "is empty"),
        (np.zeros((4, 4, 0), np.uint8), r"\(4, 4, 0\), expected"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\), expected"),
        (np.zeros((3, 40, 50), np.uint8), r"\(3, 40, 50\), expected"),
        (np.zeros((1, 4, 4, 3), np.uint8), "one image at a time"),
        (np.zeros(4, np.uint8), r"\(4,\), expected"),
        (np.zeros((4, 4, 3)), r"float64, expected uint8.*image \* 255"),
        (np.zeros((4, 4, 3), np.int8), "int8, expected uint8"),
        (np.zeros((4, 4, 3), bool), "bool, expected uint8"),
        (None, "NoneType, expected a path"),  # of cv2.imread where there is no image
        ([[1, 2]], "list, expected a path or an array"),
        ("nowhere.jpg", "nowhere.jpg: cannot be read.*No such file"),
        (".", "cannot be read as an image"),
        ("a\0b", "cannot be read as an image .embedded null"),
    ],
    ids=str,
)
def test_no_image(export, image, message):
    with pytest.raises(DetectorError, match=message):
        Detector(export())(image)


@pytest.mark.parametrize("content", [b"", b"a text", "first half"])
def test_broken_file(tmp_path, export, cells, content):
    if isinstance(content, str):
        content = min((cells / "images").iterdir()).read_bytes()
        content = content[: len(content) // 2]
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DetectorError, match="a.jpg: cannot be read as an image"):
        Detector(export())(tmp_path / "a.jpg")


def test_score_thr(export, cells):
    path = export()
    image = min((cells / "images").iterdir())
    every = Detector(path)(image)
    fewer = Detector(path, score_thr=float(every.scores[1]))(image)
    assert len(every.scores) == 3 and len(fewer.names) == 1  # less the empty row
    assert fewer.scores == every.scores[:1] and fewer.boxes.shape == (1, 4)
    none = Detector(path, score_thr=1)(image)
    assert [len(field) for field in none] == [0] * 4 and none.boxes.shape == (0, 4)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_batches_and_other_processes(export, suffix):
    # OpenVINO compiles for one image of this size, and for the batch when it comes.
    resize = dict(scale=[60, 40], keep_ratio=False)
    detector = Detector(export(suffix, resize=resize), threads=1)
    images = np.random.default_rng(0).normal(size=(2, 3, 40, 60)).astype(np.float32)
    together = [output.copy() for output in detector.infer(images)]
    copy = pickle.loads(pickle.dumps(detector))
    for i in range(2):
        for output, other in zip(together, copy.infer(images[i : i + 1])):
            np.testing.assert_allclose(output[i], other[0], atol=1e-6)
    assert [o.shape for o in together] == [(2, 4, 4), (2, 4), (2, 4)]


def damage(path, what):
    described = path.with_suffix(".json")
    if what == "model":
        path.write_bytes(path.read_bytes() + b" ")
    elif what == "weights":
        path.with_suffix(".bin").write_bytes(b"other")
    elif what == "version":
        meta = json.loads(described.read_text())
        described.write_text(json.dumps({**meta, "format_version": 1}))
    elif what == "no graph":
        path.write_bytes(b"no graph")
        meta = json.loads(described.read_text())
        described.write_text(json.dumps({**meta, "sha256": checksum(path, meta)}))
    elif what.startswith("."):
        path.with_suffix(what).unlink()
    else:
        described.write_text(what)


@pytest.mark.parametrize(
    "suffix, what, message",
    [
        (".onnx", ".onnx", "no file .*small.onnx"),
        (".onnx", ".json", "no file .*small.json; copy all .*: small.onnx, small.json"),
        (".xml", ".bin", "no file .*small.bin"),
        (".onnx", "{", "does not describe an exported detector .JSONDecodeError"),
        (".onnx", "[]", "does not describe an exported detector"),
        (".onnx", "{}", "does not describe an exported detector"),
        (".onnx", "[" * 100_000, "does not describe an exported detector .Recursion"),
        (".onnx", "version", "format_version 1, and this module reads 2"),
        (".onnx", "model", "sha256 differs"),
        (".xml", "weights", "sha256 differs"),
        (".onnx", "no graph", r"onnxruntime \S+ cannot run .*pip install --upgrade"),
        (".xml", "no graph", r"openvino \S+ cannot run .*pip install --upgrade"),
    ],
)
def test_broken_export(export, suffix, what, message):
    path = export(suffix)
    damage(path, what)
    with pytest.raises(DetectorError, match=message):
        Detector(path)


def damaged(content, rng):
    """A file with a few bytes changed, removed or put in."""
    content, place = bytearray(content), rng.randrange(len(content))
    length = rng.randrange(4)
    new = rng.choices(b'0123456789"{}[],:eE.-ntf', k=rng.randrange(3))
    content[place : place + length] = bytes(new)
    return bytes(content)


def test_damaged_description(export):
    """Nothing in it can change the result unnoticed."""
    path = export()
    described, rng = path.with_suffix(".json"), random.Random(0)
    content, image = described.read_bytes(), np.full((9, 8, 3), 99, np.uint8)
    expected = Detector(path)(image)
    for _ in range(300):
        described.write_bytes(damaged(content, rng))
        with suppress(DetectorError):
            found = Detector(path)(image)
            assert found.names == expected.names
            for values, others in zip(found, expected):
                np.testing.assert_array_equal(values, others)


def test_other_mistakes(export, tmp_path, monkeypatch):
    path = export()
    with pytest.raises(DetectorError, match="not an exported detector; give the"):
        Detector(tmp_path / "epoch_12.pth")
    with pytest.raises(DetectorError, match="precision is 'int8', expected fp32 or"):
        Detector(path, precision="int8")
    for threads in (0, "2", 1.5):
        with pytest.raises(DetectorError, match="threads is .*, expected 1 or more"):
            Detector(path, threads=threads)
    for score_thr in (float("nan"), "0.5", None):
        with pytest.raises(DetectorError, match="score_thr is .*, expected a number"):
            Detector(path, score_thr=score_thr)
    with pytest.raises(DetectorError, match="not compute in bf16.*--format openvino"):
        Detector(path, precision="bf16")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DetectorError, match="type: pip install onnxruntime"):
        Detector(path)


def test_openvino_computes_in_fp32(export, monkeypatch):
    """On CPUs with bfloat16 it would not, by itself."""
    openvino = pytest.importorskip("openvino")
    compiled = []
    compile_model = openvino.Core.compile_model

    def spy(*arguments):
        compiled.append(compile_model(*arguments))
        return compiled[-1]

    monkeypatch.setattr(openvino.Core, "compile_model", spy)
    path = export(".xml")
    Detector(path, threads=1)
    Detector(path, precision="bf16")
    hints = [m.get_property("INFERENCE_PRECISION_HINT").to_string() for m in compiled]
    assert hints[0] == "f32"
    core = runtime.openvino_core()
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert hints[1] == "bf16"
    assert compiled[0].get_property("INFERENCE_NUM_THREADS") == 1


SIGNAL = """
import signal, subprocess, sys
from ghostdet_runtime import Detector
first, second = Detector(sys.argv[1]), Detector(sys.argv[1])
del first
del second
signal.signal(signal.SIGCHLD, lambda *_: None)
subprocess.run([sys.executable, "-c", ""])
"""


def test_signals_after_openvino(export):
    """Two Cores that go in the order they came leave a stack of freed memory."""
    path = export(".xml")
    command = [sys.executable, "-c", SIGNAL, path.name]
    assert subprocess.run(command, cwd=path.parent).returncode == 0


def test_main(export, cells, capsys):
    path = export()
    image = min((cells / "images").iterdir())
    assert main([str(path), str(image), "nowhere.png"]) == 1
    printed = capsys.readouterr()
    assert "error: nowhere.png: cannot be read as an image" in printed.err
    lines = [json.loads(line) for line in printed.out.splitlines()]
    detections = Detector(path)(image)
    for line, box, score, label, name in zip(lines, *detections, strict=True):
        x, y, width, height = line.pop("bbox")
        assert [x, y, x + width, y + height] == pytest.approx(box.tolist())
        assert line == dict(
            file_name=image.name, category_id=label + 1, category_name=name, score=score
        )
    assert main([str(image), str(image)]) == 1
    assert "not an exported detector" in capsys.readouterr().err


def bgr(color):
    return [int(color[i : i + 2], 16) for i in (5, 3, 1)]


@pytest.mark.parametrize("grey", [0, 127, 255])
def test_draw(grey):
    """The best box and its label lie on top, and all stays within the image."""
    image = np.full((240, 320), grey, np.uint8)
    boxes = [[20, 80, 99, 159], [20, 80, 99, 159], [250, -9, 400, 240]]
    scores, labels = np.float32([0.9, 0.5, 0.4]), np.array([4, 1, 2])
    names = ["cat", "dog", "\u00c4pfel \u8f66"]
    found = runtime.Detections(np.float32(boxes), scores, labels, names)
    picture = draw(image, found)
    assert picture.shape == (240, 320, 3) and (image == grey).all()
    cat, dog, apple = ((picture == bgr(colors_of(i)[0])).all(2) for i in labels)
    assert cat[100:160, 20].all() and cat[100:160, 99].all() and cat[159, 20:100].all()
    assert cat[62:80, 22].any() and not cat[:60].any() and not cat[162:].any()
    assert dog[80:100].any() and not dog[:80].any()  # its label is within the box
    assert apple[20:, 250].all() and apple[20:, 319].all() and apple[239, 250:].all()
    in_ascii = found._replace(names=["cat", "dog", "#3 Apfel"])
    np.testing.assert_array_equal(picture, draw(image, in_ascii))


def test_colors():
    """They differ, and WCAG's contrast for large text is kept."""
    assert len({colors_of(label)[0] for label in range(7000)}) == 7000
    for color, ink in map(colors_of, range(100)):
        linear = (np.array(bgr(color)) / 255) ** 2.2
        light = linear @ [0.0722, 0.7152, 0.2126] + 0.05
        assert (light / 0.05 if ink == "#000000" else 1.05 / light) >= 3


def test_folder(export, tmp_path, cells, capsys):
    """Results and pictures have the paths of the images in the folder."""
    model, folder, out = str(export()), tmp_path / "in", tmp_path / "out"
    (folder / "b" / ".c").mkdir(parents=True)
    assert main([model, str(folder)]) == 1
    assert capsys.readouterr().err.startswith(f"error: no image in {folder}; give an")
    image = cv2.imread(min((cells / "images").iterdir()))
    for name in ("b/x.png", "b/.c/y.png", ".z.png", "a.ppm"):
        cv2.imwrite(folder / name, image)
    (folder / "text.jpg").write_text("no image")
    (folder / os.fsdecode(b"\xff.png")).write_bytes(b"")
    assert main([model, str(folder), "--out", str(out), "--score-thr", "0.1"]) == 1
    printed = capsys.readouterr()
    lines = map(json.loads, printed.out.splitlines())
    assert sorted({line["file_name"] for line in lines}) == ["a.ppm", "b/x.png"]
    assert sorted(out.rglob("*.*")) == [out / "a.ppm", out / "b/x.png"]
    assert "text.jpg: cannot be read" in printed.err and r"\udcff.png" in printed.err
    drawn = draw(image, Detector(model, score_thr=0.1)(image))
    np.testing.assert_array_equal(cv2.imread(out / "b/x.png"), drawn)
    for arguments in ([folder, "--out", folder], [folder, folder, "--out", out]):
        assert main([model, *map(str, arguments)]) == 1
        assert "over an image or another picture" in capsys.readouterr().err
    np.testing.assert_array_equal(cv2.imread(folder / "b/x.png"), image)
