"""torchvision's classification data sets, for MMEngine's Runner."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torchvision
from mmdet.registry import DATASETS
from mmengine.dataset import Compose
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS, is_image_file

from ghostdet.errors import UserError
from ghostdet.utils.text import shorten

# Modes of PIL's of which each value over 255 becomes 255 in RGB.
_DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}


class ClassificationDataset:
    """What a data set of torchvision's lacks for MMEngine.

    A subclass gives ``(image, label)`` by its index, and has ``classes``, their names,
    and ``targets``, the label of each image.
    """

    classes: Sequence[str]
    targets: Sequence[int]

    @property
    def metainfo(self) -> dict[str, Any]:
        """What MMEngine stores with a checkpoint: ``classes``."""
        return dict(classes=tuple(self.classes))

    @property
    def source(self) -> str:
        """What the data set is called in messages."""
        return f"{type(self).__name__} ({'train' if self.train else 'test'})"

    def full_init(self) -> None:
        """Nothing, which MMEngine's wrappers want done before they use a data set."""

    def get_cat_ids(self, index: int) -> list[int]:
        """The class of an image, by which ``ClassBalancedDataset`` repeats it."""
        return [int(self.targets[index])]

    def path(self, index: int) -> str:
        """What an image is called in messages."""
        return f"{self.source} {index}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Give a sample.

        Args:
            index: Its number.

        Returns:
            ``inputs``, what the pipeline makes of the image, and ``data_samples`` with
            ``gt_label`` and ``img_path``.
        """
        image, label = super().__getitem__(index)
        return dict(
            inputs=image,
            data_samples=dict(gt_label=int(label), img_path=self.path(index)),
        )


@DATASETS.register_module()
class ImageFolder(ClassificationDataset, torchvision.datasets.ImageFolder):
    """A folder for each class, as of ImageNet: ``root/CLASS/**/*.JPEG``.

    Classes are numbered in the order of their sorted names. Files that do not end as
    images do are passed over, as in torchvision.

    Args:
        root: The folder of the folders.
        pipeline: Configs of transforms, as
            ``dict(type='torchvision.transforms.v2.CenterCrop', size=224)``.

    Raises:
        UserError: If there is no such folder, no folder for a class in it, or one
            without images; later, if an image cannot be read.

    Example:
        >>> ImageFolder('nowhere/train')  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ghostdet.errors.UserError: nowhere/train: no such folder. ...
    """

    def __init__(self, root: str, pipeline: Sequence[dict] = ()) -> None:
        super().__init__(root, Compose(pipeline), allow_empty=True)
        self.loader = partial(load_image, root=self.root)
        counts = np.bincount(self.targets, minlength=len(self.classes))
        empty = [name for name, count in zip(self.classes, counts) if not count]
        if empty:
            raise UserError(
                f"{root}: no images in {len(empty)} of the {len(self.classes)} folders "
                f"of classes: {shorten(empty)} (images end in "
                f"{', '.join(IMG_EXTENSIONS)})\n"
                "Put images into them, or remove the folders"
            )

    @property
    def source(self) -> str:
        """The folder."""
        return str(self.root)

    def path(self, index: int) -> str:
        """Where an image is."""
        return self.samples[index][0]

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """List the folders of classes, as torchvision does; say what is expected."""
        try:
            return super().find_classes(directory)
        except OSError as error:
            raise UserError(_no_classes(directory, error)) from error


def _no_classes(root: str, error: OSError) -> str:
    """Say why there are no classes in a folder."""
    parent, name = os.path.split(os.path.normpath(root))
    remedy = (
        f"Give the directory that holds {name}/ with --data-root DIR (for ImageNet, "
        "that of train/ and val/)"
    )
    expected = f"Expected is a folder for each class, {os.path.join(root, 'CLASS')}/"
    if not os.path.isdir(root):
        return f"{root}: no such folder. {expected}\n{remedy}"
    if error.strerror is not None:
        return f"{root}: cannot be read ({error.strerror}). {expected}\n{remedy}"
    images = sum(map(is_image_file, os.listdir(root)))
    if not images:
        return f"{root}: no folders in it. {expected}\n{remedy}"
    return (
        f"{root}: {images:,} images without folders, as those come that ImageNet is "
        f"validated on. {expected}, named as for training\n"
        f"Move {root} away, put ILSVRC2012_img_val.tar and "
        f"ILSVRC2012_devkit_t12.tar.gz into {parent or '.'}, and let torchvision sort "
        'them: python -c "import torchvision; torchvision.datasets.ImageNet('
        f"'{parent or '.'}', 'val')\""
    )


def load_image(path: str, root: str | None = None) -> Any:
    """Read an image as torchvision does, and name the file if it is broken.

    Args:
        path: The file.
        root: The folder of all images, for the message; by default that of the file.

    Returns:
        A PIL image in RGB.

    Raises:
        UserError: If that gives no whole image, or has more than 8 bits a pixel of
            grey, which would be cut.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
            if mode not in _DEEP:
                return image.convert("RGB")
    except Exception as error:  # decoders raise what they like
        why = str(error) or type(error).__name__
        remedy = "restore broken files, or remove them"
        folder, name = os.path.split(path)
        if name.startswith("._"):
            why = "it is an AppleDouble file of macOS"
            folder = shlex.quote(root or folder or ".")
            remedy = f"delete all of these: find {folder} -name '._*' -delete"
        raise UserError(
            f"{path}: cannot be read as an image ({why}); {remedy}"
        ) from error
    raise UserError(
        f"{path}: has 16 bits a pixel or more (PIL's mode {mode}), of which those over "
        "255 would all be white; scale such images to 8 bits"
    )


@DATASETS.register_module()
class CIFAR10(ClassificationDataset, torchvision.datasets.CIFAR10):
    """CIFAR-10, by torchvision: 50,000 images of 32x32 to train on, 10,000 to test.

    Args:
        root: Where it is, or is downloaded to.
        train: Images to train on, or those to test.
        pipeline: As of :class:`ImageFolder`.
        download: Download it if it is not there. The check at the start does so in the
            first process alone; without it (``--no-check``), or on several machines,
            have it there before.

    Raises:
        UserError: If it is not there, or damaged.
    """

    def __init__(
        self,
        root: str,
        train: bool = True,
        pipeline: Sequence[dict] = (),
        download: bool = False,
    ) -> None:
        try:
            super().__init__(root, train, Compose(pipeline), download=download)
        except (OSError, RuntimeError) as error:
            folder = os.path.join(root, self.base_folder)
            if download:
                raise UserError(
                    f"CIFAR-10 cannot be downloaded to {root} ({error}); fetch "
                    f"{self.url} by other means and unpack it there, as {folder}"
                ) from error
            problem = "is damaged" if os.path.isdir(folder) else "is not there"
            raise UserError(
                f"{folder}: CIFAR-10 {problem}; --cfg-options "
                "train_dataloader.dataset.download=True (to test, that of "
                "test_dataloader) fetches it, 170 MB, and --data-root DIR names the "
                "directory that holds it already"
            ) from error
