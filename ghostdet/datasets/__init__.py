"""Datasets, and image loading that names what it cannot read."""

from mmdet.datasets import utils

from ghostdet.datasets.classification import CIFAR10, ImageFolder
from ghostdet.datasets.digits import Digits
from ghostdet.datasets.prepare import prepare_coco, prepare_trees
from ghostdet.datasets.transforms import LoadReadableImage

utils.LoadImageFromFile = LoadReadableImage  # which get_loading_pipeline looks for

__all__ = [
    "CIFAR10",
    "Digits",
    "ImageFolder",
    "LoadReadableImage",
    "prepare_coco",
    "prepare_trees",
]
