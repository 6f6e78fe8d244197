"""Datasets, and image loading that names what it cannot read."""

from ghostdet.datasets.classification import CIFAR10, ImageFolder
from ghostdet.datasets.digits import Digits
from ghostdet.datasets.prepare import prepare_coco, prepare_trees
from ghostdet.datasets.transforms import LoadReadableImage, use_readable_images

__all__ = [
    "CIFAR10",
    "Digits",
    "ImageFolder",
    "LoadReadableImage",
    "prepare_coco",
    "prepare_trees",
    "use_readable_images",
]
