import copy
import pickle
import shutil

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import DATASETS
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader

from ghostdet.datasets import LoadReadableImage
from ghostdet.datasets.transforms import loading
from ghostdet.errors import UserError
from ghostdet.runtime import is_truncated_jpeg

JPEGS = {
    "baseline": (".jpg", []),
    "progressive": (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    "restart": (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 4]),
}
FORMATS = {**JPEGS, "png": (".png", [])}
# A segment that contains a JPEG, after its length in two bytes.
THUMBNAIL = b"\xff\xe1\x00\x0a" + b"\xff\xd8\xff\xda..\xff\xd9"


def encode(kind: str) -> bytes:
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (9, 12, 3), np.uint8), (120, 90))
    extension, parameters = FORMATS[kind]
    return cv2.imencode(extension, image, parameters)[1].tobytes()


@pytest.fixture
def logged(monkeypatch):
    """Messages logged in this process."""
    messages = []
    monkeypatch.setattr(loading, "print_log", lambda text, **_: messages.append(text))
    return messages


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("trailer", [b"", b"\0" * 40, b"\r\n", b"motion photo" * 9])
def test_whole(tmp_path, kind, trailer):
    path = tmp_path / "image"
    path.write_bytes(encode(kind) + trailer)
    for arguments in (
        {},
        dict(to_float32=True),
        dict(color_type="grayscale"),
        dict(color_type="unchanged", imdecode_backend="pillow"),
    ):
        expected = LoadImageFromFile(**arguments)({"img_path": str(path)})
        actual = LoadReadableImage(**arguments)({"img_path": str(path)})
        assert actual.keys() == expected.keys()
        assert actual["img"].dtype == expected["img"].dtype
        assert np.array_equal(actual["img"], expected["img"])
        assert actual["img_shape"] == actual["ori_shape"] == (90, 120)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("keep", [0.9, 0.5, 0.1, -1, -2, -20])
def test_truncated(tmp_path, kind, keep):
    content = encode(kind)
    if kind in JPEGS:
        content = content[:2] + THUMBNAIL + content[2:]
    end = keep if keep < 0 else int(keep * len(content))
    path = tmp_path / "image"
    path.write_bytes(content[:end])
    for backend in ("cv2", "pillow"):
        if backend == "pillow" and kind == "png" and keep < 0:
            continue  # Pillow needs only the pixels, which are complete
        # OpenCV 4.10 would decode the first part of a JPEG and not fail.
        reason = "the JPEG data ends early" if kind in JPEGS else ""
        with pytest.raises(UserError, match=f"cannot be read .*{reason}.* Restore"):
            LoadReadableImage(imdecode_backend=backend)({"img_path": str(path)})


def test_thumbnail_and_fill_bytes_are_no_defect():
    content = encode("baseline")
    assert not is_truncated_jpeg(content[:2] + THUMBNAIL + content[2:])
    assert not is_truncated_jpeg(content[:2] + b"\xff\xff" + content[2:])
    assert not is_truncated_jpeg(b"BM")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "the file is empty"),
        (b"<html>404 Not Found</html>", "not an image"),
        (b"\xff\xd8\xff", "ends early"),
        (b"\xff\xd8\xff\xe0\x00\x00", "ends early"),
    ],
)
def test_not_an_image(tmp_path, content, reason):
    path = tmp_path / "image"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"image: .*{reason}"):
        LoadReadableImage()({"img_path": str(path)})


def test_12_bits_in_16(tmp_path, logged):
    image = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, image)
    load = LoadReadableImage()
    for _ in range(2):
        assert (load({"img_path": path})["img"] == image[..., None] // 256).all()
    assert len(logged) == 1 and "16 bits and values up to 4095: " in logged[0]
    assert "sees 0 to 15 of 255" in logged[0]
    scaled = LoadReadableImage(max_value=4095)({"img_path": path})["img"]
    assert scaled.dtype == np.uint8
    assert abs(scaled - image[..., None] * (255 / 4095)).max() <= 0.5
    with pytest.raises(UserError, match="max_value=4095 needs imdecode_backend='cv2'"):
        LoadReadableImage(max_value=4095, imdecode_backend="pillow")


def test_counts_distinct_images(logged):
    # A spawned worker gets a pickled copy, a forked one the object itself.
    load = LoadReadableImage(max_unreadable=2)
    copies = [load, copy.deepcopy(load), pickle.loads(pickle.dumps(load))]
    for path in ("a\n.jpg", "b é.jpg"):
        for each in copies:
            assert each({"img_path": path}) is None
    assert len(logged) == 2
    assert "a\n.jpg" in logged[0] and "1 of max_unreadable=2" in logged[0]
    with pytest.raises(UserError, match="3 images cannot be read") as caught:
        copies[1]({"img_path": "c.jpg"})
    assert all(name in str(caught.value) for name in ("a\n.jpg", "b é.jpg", "c.jpg"))
    assert LoadReadableImage(max_unreadable=1)({"img_path": "d.jpg"}) is None


@pytest.fixture
def broken_coco(tmp_path, coco):
    """Six drawn images: the first two are truncated, and the third is missing."""
    images = shutil.copytree(coco / "val2017", tmp_path / "images")
    shutil.copy(coco / "annotations/instances_val2017.json", tmp_path / "val.json")
    paths = sorted(images.iterdir())[:3]
    for path, keep in zip(paths, (0.9, 0.1)):
        path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    paths[2].unlink()
    return tmp_path, [str(path) for path in paths]


def coco_loader(root, max_unreadable, num_workers=2, **kwargs):
    pipeline = [
        dict(type="LoadReadableImage", max_unreadable=max_unreadable),
        dict(type="LoadAnnotations", with_bbox=True),
        dict(type="Resize", scale=(64, 64), keep_ratio=True),
        dict(type="PackDetInputs"),
    ]
    cfg = dict(
        type="CocoDataset",
        data_root=str(root),
        ann_file="val.json",
        data_prefix=dict(img="images"),
        pipeline=pipeline,
        **kwargs,
    )
    # As in a Runner: the names in a pipeline are looked up in the default scope.
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = DATASETS.build(cfg)
    return DataLoader(dataset, num_workers=num_workers, collate_fn=pseudo_collate)


def test_training_continues(broken_coco, tmp_path):
    root, broken = broken_coco
    log = tmp_path / "log.txt"
    MMLogger.get_instance("unreadable", log_file=str(log))
    try:
        for _ in range(2):  # the second epoch has new workers and the same count
            batches = list(coco_loader(root, max_unreadable=3))
    finally:
        MMLogger._instance_dict.pop("unreadable")
    assert len(batches) == 6
    loaded = [batch["data_samples"][0].img_path for batch in batches]
    assert not set(loaded) & set(broken)
    assert all(path in log.read_text() for path in broken)


def test_workers_share_the_count(broken_coco, failure):
    root, broken = broken_coco
    # Without shuffling, one worker meets two of the three and the other one.
    error = failure(coco_loader(root, max_unreadable=2))
    assert error.text.startswith("3 images cannot be read")
    assert all(path in error.text for path in broken)
