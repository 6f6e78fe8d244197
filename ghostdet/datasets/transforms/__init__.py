"""Transforms, in MMCV's ``TRANSFORMS``."""

from ghostdet.datasets.transforms.loading import LoadReadableImage, use_readable_images

__all__ = ["LoadReadableImage", "use_readable_images"]
