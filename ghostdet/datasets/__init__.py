"""Data sets, robust image loading and checks before a run."""

from ghostdet.datasets.check import check_dataset, check_evaluation
from ghostdet.datasets.classification import CIFAR10, ImageFolder
from ghostdet.datasets.coco import prepare_coco
from ghostdet.datasets.digits import Digits
from ghostdet.datasets.loading import LoadReadableImage, use_readable_images
from ghostdet.datasets.trees import prepare_trees

__all__ = [
    "CIFAR10",
    "Digits",
    "ImageFolder",
    "LoadReadableImage",
    "check_dataset",
    "check_evaluation",
    "prepare_coco",
    "prepare_trees",
    "use_readable_images",
]
