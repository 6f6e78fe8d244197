"""torchvision's classification datasets, for MMEngine's Runner."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from typing import Any

import torchvision
from mmdet.registry import DATASETS
from mmengine.dataset import Compose
from torchvision.datasets.folder import is_image_file

from ghostdet.errors import UserError
from ghostdet.utils.files import open_image

# PIL's modes whose values over 255 all become 255 in RGB.
_DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}


class ClassificationDataset:
    """Base class that adds to a dataset of torchvision what MMEngine needs.

    A subclass returns ``(image, label)`` by index and has ``classes``, the names of
    the classes, and ``targets``, the label of each image.
    """

    classes: Sequence[str]
    targets: Sequence[int]

    @property
    def metainfo(self) -> dict[str, Any]:
        """The metadata that MMEngine stores with a checkpoint: ``classes``."""
        return dict(classes=tuple(self.classes))

    @property
    def source(self) -> str:
        """Name of the dataset in messages."""
        return f"{type(self).__name__} ({'train' if self.train else 'test'})"

    def full_init(self) -> None:
        """Do nothing; MMEngine's wrappers call it before they use a dataset."""

    def get_cat_ids(self, index: int) -> list[int]:
        """Return the class of an image, for ``ClassBalancedDataset``."""
        return [int(self.targets[index])]

    def path(self, index: int) -> str:
        """Name an image in messages."""
        return f"{self.source} {index}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a sample.

        Args:
            index: Number of the sample.

        Returns:
            ``inputs``, the image after the pipeline, and ``data_samples`` with
            ``gt_label`` and ``img_path``.
        """
        image, label = super().__getitem__(index)
        return dict(
            inputs=image,
            data_samples=dict(gt_label=int(label), img_path=self.path(index)),
        )


@DATASETS.register_module()
class ImageFolder(ClassificationDataset, torchvision.datasets.ImageFolder):
    """A folder for each class, as in ImageNet: ``root/CLASS/**/*.JPEG``.

    Classes are numbered in the order of their sorted names. Files without the
    extension of an image are skipped, as in torchvision, and so are macOS's ``._*``.

    Args:
        root: Folder that holds a folder for each class.
        pipeline: Configs of transforms, such as
            ``dict(type='torchvision.transforms.v2.CenterCrop', size=224)``.

    Raises:
        UserError: If the folder is missing, has no folder of a class, or one without
            images; later, if an image cannot be read.

    Example:
        >>> ImageFolder('nowhere/train')  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ghostdet.errors.UserError: nowhere/train: no such folder. ...
    """

    def __init__(self, root: str, pipeline: Sequence[dict] = ()) -> None:
        transform = Compose(pipeline)
        try:
            super().__init__(
                root, transform, loader=load_image, is_valid_file=_is_image
            )
        except FileNotFoundError as error:  # torchvision's, for classes without images
            text = textwrap.shorten(str(error), 300, placeholder=" ...")
            raise UserError(
                f"{root}: {text} Put images into them, or remove the folders"
            ) from error

    @property
    def source(self) -> str:
        """The folder, which names the dataset in messages."""
        return str(self.root)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return self.samples[index][0]

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """List the folders of classes as torchvision does, with our error message."""
        try:
            return super().find_classes(directory)
        except OSError as error:
            raise UserError(_no_classes(directory)) from error


def _no_classes(root: str) -> str:
    """Say why a folder has no classes."""
    parent, name = os.path.split(os.path.normpath(root))
    remedy = (
        f"Give the directory that holds {name}/ with --data-root DIR (for ImageNet, "
        "the one with train/ and val/)"
    )
    expected = f"Expected a folder for each class, {os.path.join(root, 'CLASS')}/"
    if not os.path.isdir(root):
        return f"{root}: no such folder. {expected}\n{remedy}"
    images = sum(map(is_image_file, os.listdir(root)))
    if not images:
        return f"{root}: no folders in it. {expected}\n{remedy}"
    return (
        f"{root}: {images:,} images without folders, like ImageNet's validation "
        f"archive. {expected}, named as for training\n"
        f"Move {root} away, put ILSVRC2012_img_val.tar and "
        f"ILSVRC2012_devkit_t12.tar.gz into {parent or '.'}, and let torchvision sort "
        'them: python -c "import torchvision; torchvision.datasets.ImageNet('
        f"'{parent or '.'}', 'val')\""
    )


def _is_image(path: str) -> bool:
    return is_image_file(path) and not os.path.basename(path).startswith("._")


def load_image(path: str) -> Any:
    """Read an image as torchvision does, and name the file if it is broken.

    Args:
        path: Path of the file.

    Returns:
        A PIL image in RGB.

    Raises:
        UserError: If the file cannot be decoded, or is grey with more than 8 bits a
            pixel, which RGB would clip.
    """
    try:
        with open_image(path) as image:
            mode = image.mode
            if mode not in _DEEP:
                return image.convert("RGB")
    except Exception as error:  # decoders raise what they like
        raise UserError(
            f"{path}: cannot be read as an image "
            f"({str(error) or type(error).__name__}); restore broken files, or remove "
            "them"
        ) from error
    raise UserError(
        f"{path}: has 16 bits a pixel or more (PIL's mode {mode}), and all values over "
        "255 would become white; scale such images to 8 bits"
    )


@DATASETS.register_module()
class CIFAR10(ClassificationDataset, torchvision.datasets.CIFAR10):
    """CIFAR-10, by torchvision: 50,000 images of 32x32 to train on, 10,000 to test.

    Args:
        root: Folder that holds the dataset, or that it is downloaded to.
        train: Whether to use the images to train on, or the images to test on.
        pipeline: Configs of transforms; see :class:`ImageFolder`.
        download: Whether to download the dataset if it is missing. The check before a
            run does so in one process; without it (``--no-check``), or on several
            machines, download the dataset first.

    Raises:
        UserError: If the dataset is missing or damaged.
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
                "train_dataloader.dataset.download=True (for tools/test.py, "
                "test_dataloader) downloads it, 170 MB; --data-root DIR names a "
                "directory that holds it already"
            ) from error
