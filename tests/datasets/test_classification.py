import warnings

import numpy as np
import pytest
import torch
import torchvision
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from ghostdet.checks import check_dataset
from ghostdet.datasets import ImageFolder
from ghostdet.errors import ConfigError, UserError

V2 = "torchvision.transforms.v2."
TO_TENSOR = dict(type=V2 + "PILToTensor")


def first_image(folder):
    return next(iter(sorted(folder.glob("*.JPEG"))))


def test_folder_is_torchvision_s(digit_folders):
    """With stray and hidden files, and folders in the folders, as it treats them."""
    root = digit_folders / "train"
    (root / "README.txt").touch()
    (root / "n0/.DS_Store").touch()
    (root / "n0/notes.txt").touch()
    (root / "n1/more").mkdir()
    first_image(root / "n1").rename(root / "n1/more/x.PNG")
    (root / ".hidden").mkdir()
    first_image(root / "n2").rename(root / ".hidden/.y.jpg")
    ours = ImageFolder(str(root), [TO_TENSOR])
    plain = torchvision.datasets.ImageFolder(root)
    assert ours.classes == plain.classes == [".hidden", "n0", "n1", "n2", "n3"]
    assert ours.metainfo == dict(classes=tuple(plain.classes))
    assert len(ours) == len(plain) == 24
    for (path, label), sample in zip(plain.samples, ours):
        assert sample["data_samples"] == dict(gt_label=label, img_path=path)
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert np.array_equal(sample["inputs"].permute(1, 2, 0), pixels)


def test_samples_are_collated(digit_folders):
    data = ImageFolder(str(digit_folders / "val"), [TO_TENSOR])
    batch = default_collate([data[0], data[11]])
    assert batch["inputs"].shape == (2, 3, 40, 48)
    assert batch["inputs"].dtype == torch.uint8
    assert batch["data_samples"]["gt_label"].tolist() == [0, 3]
    assert batch["data_samples"]["img_path"] == [data.path(0), data.path(11)]


# Faults of a folder, and what is said of it.


def remove(root):
    root.rename(root.parent / "elsewhere")


def flatten(root):
    for path in list(root.glob("*/*")):
        path.rename(root / path.name)
    for folder in list(root.iterdir()):
        if folder.is_dir():
            folder.rmdir()


def clear(root):
    flatten(root)
    for path in root.iterdir():
        path.unlink()


def empty(*names):
    def damage(root):
        for name in names:
            (root / name).mkdir(exist_ok=True)
            for path in (root / name).iterdir():
                path.unlink()

    return damage


def replace_by_file(root):
    remove(root)
    root.touch()


FOLDERS = {
    "missing": (
        remove,
        r"val: no such folder. Expected .* each class, \S+/val/CLASS/\n"
        r"Give the directory that holds val/ with --data-root DIR",
    ),
    "a file": (replace_by_file, r"val: no such folder"),
    "nothing in it": (clear, r"val: no folders in it. .*\n.*--data-root DIR"),
    "flat": (
        flatten,
        r"val: 12 images without folders, like ImageNet's .*\n"
        r"Move .* ILSVRC2012_img_val.tar .*datasets.ImageNet\('\S+/digits', 'val'\)",
    ),
    "an empty class": (
        empty("n2"),
        r"val: no images in 1 of the 4 folders of classes: n2 \(.*\.jpeg.*\)\n"
        "Put images into them, or remove",
    ),
    "empty and hidden": (
        empty("n1", ".ipynb_checkpoints"),
        r"no images in 2 of the 5 folders of classes: \.ipynb_checkpoints, n1 ",
    ),
}


@pytest.mark.parametrize("fault", FOLDERS)
def test_faulty_folder(digit_folders, fault):
    damage, message = FOLDERS[fault]
    damage(digit_folders / "val")
    cfg = dict(type="ImageFolder", root=str(digit_folders / "val"))
    with pytest.raises(UserError, match=message):
        ImageFolder(cfg["root"])
    with pytest.raises(UserError, match=message):
        check_dataset(cfg)


def test_arguments_that_do_not_fit():
    with pytest.raises(ConfigError, match="cannot be built.*'roots'"):
        check_dataset(dict(type="ImageFolder", roots="x"))


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def cut_png(path):
    Image.open(path).save(path, "png")
    cut(path)


IMAGES = {
    "truncated": cut,
    "truncated PNG": cut_png,
    "no bytes": lambda path: path.write_bytes(b""),
    "no image": lambda path: path.write_text("<html>404</html>"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("fault", IMAGES)
def test_broken_image(digit_folders, failure, fault, workers):
    data = ImageFolder(str(digit_folders / "train"), [TO_TENSOR])
    path = first_image(digit_folders / "train/n2")
    IMAGES[fault](path)
    error = failure(DataLoader(data, num_workers=workers))
    assert error.text.startswith(f"{path}: cannot be read as an image (")
    assert error.text.endswith("; restore broken files, or remove them")
    assert "\n" not in error.text


@pytest.mark.parametrize(
    "dtype, name", [(np.uint16, "a.png"), (np.uint16, "a.tif"), (np.float32, "a.tif")]
)
def test_more_than_8_bits(digit_folders, dtype, name):
    """torchvision would make 255 of all that is more."""
    values = np.arange(48 * 40, dtype=dtype).reshape(48, 40)
    Image.fromarray(values).save(digit_folders / "train/n0" / name)
    with pytest.raises(UserError, match=f"{name}: has 16 bits a pixel or more"):
        list(ImageFolder(str(digit_folders / "train")))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_other_modes(digit_folders, mode):
    path = first_image(digit_folders / "train/n0")
    image = Image.open(path).convert(mode)
    path.unlink()
    path = path.with_suffix(".tif")
    image.save(path)
    samples = ImageFolder(str(path.parents[1]), [TO_TENSOR])
    (found,) = (s for s in samples if s["data_samples"]["img_path"] == str(path))
    expected = np.asarray(torchvision.datasets.folder.default_loader(path))
    assert np.array_equal(found["inputs"].permute(1, 2, 0), expected)


def test_in_wrappers(digit_folders):
    """Of MMEngine's, by which datasets are joined, repeated and balanced."""
    for path in list((digit_folders / "train/n3").iterdir())[3:]:
        path.unlink()
    data = dict(type="ImageFolder", root=str(digit_folders / "train"))
    whole = DATASETS.build(data)

    def labels(**wrapper):
        with DefaultScope.overwrite_default_scope("mmdet"):
            wrapped = DATASETS.build(wrapper)
        assert wrapped.metainfo["classes"] == tuple(whole.classes)
        return [wrapped[i]["data_samples"]["gt_label"] for i in range(len(wrapped))]

    assert labels(type="ConcatDataset", datasets=[data, data]) == 2 * whole.targets
    assert labels(type="RepeatDataset", dataset=data, times=3) == 3 * whole.targets
    # Of n3 there are 3 in 21: repeated by the root of 0.5 over that.
    balanced = labels(type="ClassBalancedDataset", dataset=data, oversample_thr=0.5)
    assert [balanced.count(label) for label in range(4)] == [12, 12, 12, 6]


def test_file_of_macos(digit_folders):
    root = digit_folders / "train"
    (root / "n0/._a.jpg").write_bytes(b"\0\5\26\7")
    with pytest.raises(UserError, match="AppleDouble") as caught:
        list(ImageFolder(str(root)))
    assert caught.value.text.endswith(f": find {root} -name '._*' -delete")


def test_large_image_is_no_error(digit_folders, monkeypatch):
    data = ImageFolder(str(digit_folders / "train"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # these have 1920
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert data[0]["inputs"].size == (48, 40)
    assert [w.category for w in caught] == [Image.DecompressionBombWarning]
