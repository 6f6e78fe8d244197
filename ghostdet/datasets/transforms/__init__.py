"""Transforms, in MMCV's ``TRANSFORMS``."""

from ghostdet.datasets.transforms.loading import LoadReadableImage

__all__ = ["LoadReadableImage"]
