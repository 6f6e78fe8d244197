import numpy as np
import pytest
import torchvision
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope
from PIL import Image
from torch.utils.data import DataLoader

from ghostdet.datasets import ImageFolder
from ghostdet.errors import UserError

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
    grey = first_image(root / "n3")
    Image.open(grey).convert("L").save(grey)
    plain = torchvision.datasets.ImageFolder(root)
    (root / f"n3/._{grey.name}").write_text("macOS's, which is skipped")
    ours = ImageFolder(str(root), [TO_TENSOR])
    assert ours.classes == plain.classes == [".hidden", "n0", "n1", "n2", "n3"]
    assert ours.metainfo == dict(classes=tuple(plain.classes))
    assert len(ours) == len(plain) == 24
    for (path, _), (image, label), sample in zip(plain.samples, plain, ours):
        assert sample["data_samples"] == dict(gt_label=label, img_path=path)
        assert np.array_equal(sample["inputs"].permute(1, 2, 0), image)


# Faults of a folder, and what is said of it.


def remove(root):
    root.rename(root.parent / "elsewhere")


def flatten(root):
    for path in list(root.glob("*/*")):
        path.rename(root / path.name)
    for folder in root.glob("n?"):
        folder.rmdir()


def clear(root):
    remove(root)
    root.mkdir()


def empty(root):
    (root / ".ipynb_checkpoints").mkdir()
    for path in (root / "n1").iterdir():
        path.unlink()


FOLDERS = {
    "missing": (
        remove,
        r"val: no such folder. Expected .* each class, \S+/val/CLASS/\n"
        r"Give the directory that holds val/ with --data-root DIR",
    ),
    "nothing in it": (clear, r"val: no folders in it. .*\n.*--data-root DIR"),
    "flat": (
        flatten,
        r"val: 12 images without folders, like ImageNet's .*\n"
        r"Move .* ILSVRC2012_img_val.tar .*datasets.ImageNet\('\S+/digits', 'val'\)",
    ),
    "empty classes": (
        empty,
        r"val: .* no valid file for the classes \.ipynb_checkpoints, n1\. Put images",
    ),
}


@pytest.mark.parametrize("fault", FOLDERS)
def test_faulty_folder(digit_folders, fault):
    damage, message = FOLDERS[fault]
    damage(digit_folders / "val")
    with pytest.raises(UserError, match=message):
        ImageFolder(str(digit_folders / "val"))


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


def test_in_wrappers(digit_folders):
    """MMEngine joins, repeats and balances the dataset."""
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
