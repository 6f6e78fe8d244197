"""Loading images from a dataset in which some files are broken."""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import tempfile
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.image.io import imread_flags
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine import fileio
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from ghostdet.errors import ConfigError, UserError
from ghostdet.runtime import is_truncated_jpeg


@TRANSFORMS.register_module(name=["LoadImageFromFile", "LoadReadableImage"], force=True)
class LoadReadableImage(LoadImageFromFile):
    """Load an image, and name the file if it is missing or broken.

    It takes the place of MMCV's ``LoadImageFromFile`` in MMDetection's registry, so
    that configs keep the name that MMDetection's tools look for. MMCV's own does not
    name the file, and with OpenCV 4 it decodes the first part of a truncated JPEG and
    leaves the rest grey.

    In evaluation (``max_unreadable=0``) the first unreadable image is an error. In
    training, up to ``max_unreadable`` distinct images are skipped with a warning each:
    the transform returns None, and :class:`mmengine.dataset.BaseDataset` draws another
    image. One more is an error. All DataLoader workers and copies of the transform
    share the count; each rank of a distributed run has its own.

    Args:
        *args: Arguments of MMCV's ``LoadImageFromFile``, in its order. With
            ``ignore_empty`` any number of images is skipped.
        max_unreadable: Number of distinct unreadable images to skip.
        max_value: Value that becomes 255 in images of more than 8 bits, such as 4095.
            Defaults to OpenCV's, 65535 of 16 bits, with one warning if all is dark.
        **kwargs: Arguments of MMCV's ``LoadImageFromFile``.

    Raises:
        ConfigError: If ``max_value`` is given, and OpenCV does not convert the image.

    Example:
        >>> load = LoadReadableImage(max_unreadable=10)
        >>> load({'img_path': 'missing.jpg'}) is None  # logs a warning
        True
    """

    def __init__(
        self, *args: Any, max_unreadable: int = 0, max_value: float = 0, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        own = self.imdecode_backend == "cv2" and self.color_type != "unchanged"
        if max_value and not own:
            raise ConfigError(
                f"max_value={max_value} needs imdecode_backend='cv2' and a color_type "
                "other than 'unchanged'; correct LoadImageFromFile in the pipeline"
            )
        self.max_value, self.dark = max_value, ""  # the warning, once given
        self.max_unreadable = math.inf if self.ignore_empty else max_unreadable
        # One JSON line [path, reason] for each unreadable image. Only the file's name
        # is kept here, so that the count survives fork, spawn, pickling and copying.
        self._record = os.path.join(
            tempfile.gettempdir(), f"ghostdet-unreadable-{uuid.uuid4().hex}.jsonl"
        )
        atexit.register(Path(self._record).unlink, missing_ok=True)

    def transform(self, results: dict) -> dict | None:
        """Load the image of one sample.

        Args:
            results: The sample, with ``img_path``.

        Returns:
            The sample with ``img`` of shape (H, W, 3), or (H, W) where
            ``color_type`` is grey, uint8 BGR (float32 with ``to_float32``), and
            ``img_shape`` and ``ori_shape``, both ``(H, W)``; None for an unreadable
            image that is skipped.

        Raises:
            UserError: If more than ``max_unreadable`` images are unreadable.
        """
        try:
            image = self.read(results["img_path"])
        except OSError as err:
            self._skip(results["img_path"], str(err))
            return None
        if self.to_float32:
            image = image.astype(np.float32)
        results["img"] = image
        results["img_shape"] = image.shape[:2]
        results["ori_shape"] = image.shape[:2]
        return results

    def read(self, path: str) -> np.ndarray:
        """Read and decode a file.

        Args:
            path: Path of the file, for the file backend.

        Returns:
            The image of shape (H, W, 3), or (H, W) where ``color_type`` is grey,
            uint8 BGR.

        Raises:
            OSError: If the file is missing, empty, not an image or truncated.
        """
        if self.file_client_args is not None:  # in older configs
            client = fileio.FileClient.infer_client(self.file_client_args, path)
            content = client.get(path)
        else:
            content = fileio.get(path, backend_args=self.backend_args)
        if not content:
            raise OSError("the file is empty")
        if is_truncated_jpeg(content):
            raise OSError("the JPEG data ends early")
        decode = partial(mmcv.imfrombytes, content, backend=self.imdecode_backend)
        flag, deep = self.color_type, cv2.IMREAD_ANYDEPTH
        cv = self.imdecode_backend == "cv2" and flag != "unchanged"
        try:
            image = decode(imread_flags[flag] | deep if cv else flag)
            if cv and image is not None and image.dtype != np.uint8:
                image = self._to_8_bits(image, decode(flag), path)
        except (SyntaxError, cv2.error) as err:  # SyntaxError: Pillow's PNG
            raise OSError(str(err).strip()) from err
        if image is None:
            raise OSError("not an image, or one whose data ends early")
        return image

    def _to_8_bits(self, image: Any, usual: Any, path: str) -> np.ndarray | None:
        """Scale an image, or give OpenCV's usual one, with a warning if it is dark."""
        if self.max_value:
            return cv2.convertScaleAbs(image, alpha=255 / self.max_value)
        first = not self.dark and getattr(get_worker_info(), "id", 0) == 0
        if first and usual is not None and usual.max() < 128:
            self.dark = (
                f"{path} has {8 * image.itemsize} bits and values up to {image.max()}: "
                f"the network sees 0 to {usual.max()} of 255. If all images are like "
                "this, give LoadImageFromFile in all pipelines max_value, such as "
                "--cfg-options test_dataloader.dataset.pipeline.0.max_value=4095"
            )
            print_log(self.dark, logger="current", level=logging.WARNING)
        return usual

    def _skip(self, path: str, reason: str) -> None:
        """Record an unreadable image; raise if it is one too many."""
        if self.max_unreadable == 0:
            raise UserError(
                f"{path}: cannot be read as an image ({reason}). Restore the file, or "
                "remove its entry from the annotation file"
            )
        if path in self._unreadable():
            return
        with open(self._record, "ab", buffering=0) as file:  # an append is atomic
            file.write((json.dumps([path, reason]) + "\n").encode())
        unreadable = self._unreadable()
        if len(unreadable) > self.max_unreadable:
            listing = "\n".join(f"  {p} ({why})" for p, why in unreadable.items())
            raise UserError(
                f"{len(unreadable)} images cannot be read, and LoadReadableImage has "
                f"max_unreadable={self.max_unreadable}:\n{listing}\n"
                "Restore these files, remove their entries from the annotation file, "
                "or raise max_unreadable"
            )
        print_log(
            f"Skipped unreadable image {path}: {reason} ({len(unreadable)} of "
            f"max_unreadable={self.max_unreadable})",
            logger="current",
            level=logging.WARNING,
        )

    def _unreadable(self) -> dict[str, str]:
        """Return all images that any worker has skipped, with the reasons."""
        try:
            with open(self._record, encoding="utf-8") as file:
                # Another worker may be in the middle of the last line.
                return dict(json.loads(line) for line in file if line.endswith("\n"))
        except FileNotFoundError:
            return {}
