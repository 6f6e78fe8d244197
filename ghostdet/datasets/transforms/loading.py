"""Loading images from a data set in which some files are broken."""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import tempfile
import uuid

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine import fileio
from mmengine.logging import print_log

from ghostdet.errors import ConfigError, UserError
from ghostdet.runtime import is_truncated_jpeg


@TRANSFORMS.register_module()
class LoadReadableImage(LoadImageFromFile):
    """Load an image; say which file is missing or broken, and go on if allowed.

    A file is unreadable if it is missing, empty, not an image, or an image whose
    data ends early. MMCV's own transform stops the run on some of these without
    naming a remedy, and lets others pass: OpenCV 4 decodes the first part of a
    truncated JPEG and leaves the rest grey (OpenCV 5 does not).

    In evaluation (``max_unreadable=0``) the first unreadable image is an error. In
    training, up to ``max_unreadable`` distinct images are passed over: each is
    logged once as a warning, and the transform returns None, upon which
    :class:`mmengine.dataset.BaseDataset` draws another image. One more is an error.

    The count is kept for the life of the transform and is shared by all its
    DataLoader workers and copies. Each rank of a distributed run has its own.

    Args:
        to_float32: Whether to convert the image to float32.
        color_type: The flag of :func:`mmcv.imfrombytes`.
        imdecode_backend: The decoder, as in :func:`mmcv.imfrombytes`.
        file_client_args: MMCV's older name of ``backend_args``.
        ignore_empty: Pass over any number of unreadable images.
        backend_args: The file backend, as in :func:`mmengine.fileio.get`.
        max_unreadable: Number of distinct unreadable images to pass over.

    Example:
        >>> load = LoadReadableImage(max_unreadable=10)
        >>> load({'img_path': 'missing.jpg'}) is None  # logs a warning
        True
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: str = "color",
        imdecode_backend: str = "cv2",
        file_client_args: dict | None = None,
        ignore_empty: bool = False,
        *,
        backend_args: dict | None = None,
        max_unreadable: int = 0,
    ) -> None:
        if file_client_args is not None:
            if backend_args is not None:
                raise ConfigError(
                    "file_client_args is the older name of backend_args; give one"
                )
            backend_args = file_client_args.copy()
            if backend_args.get("backend") == "disk":  # its older name
                backend_args["backend"] = "local"
        super().__init__(
            to_float32=to_float32,
            color_type=color_type,
            imdecode_backend=imdecode_backend,
            ignore_empty=ignore_empty,
            backend_args=backend_args,
        )
        self.max_unreadable = math.inf if ignore_empty else max_unreadable
        # One JSON line [path, reason] for each unreadable image. Only the name of
        # the file is kept here, so fork, spawn, pickling and copying all keep the
        # count common; the file itself exists once something is unreadable.
        self._record = os.path.join(
            tempfile.gettempdir(), f"ghostdet-unreadable-{uuid.uuid4().hex}.jsonl"
        )
        atexit.register(_discard, self._record)

    def transform(self, results: dict) -> dict | None:
        """Load the image of one sample.

        Args:
            results: The sample, with ``img_path``.

        Returns:
            The sample with ``img`` of shape (H, W, 3), or (H, W) where
            ``color_type`` is grey, uint8 BGR (float32 with ``to_float32``), and
            ``img_shape`` and ``ori_shape``, both ``(H, W)``; None where the image
            is unreadable and may be passed over.

        Raises:
            UserError: If the image is unreadable and ``max_unreadable`` is 0, or if
                more than ``max_unreadable`` have been.
        """
        path = results["img_path"]
        try:
            image = self.read(path)
        except OSError as err:
            self._pass_over(path, str(err))
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
            path: Where it is, for the file backend.

        Returns:
            The image of shape (H, W, 3), or (H, W) where ``color_type`` is grey,
            uint8 BGR.

        Raises:
            OSError: If that gives no whole image; the message says why.
        """
        content = fileio.get(path, backend_args=self.backend_args)
        if not content:
            raise OSError("the file is empty")
        if is_truncated_jpeg(content):
            raise OSError("the JPEG data ends early")
        try:
            image = mmcv.imfrombytes(
                content, flag=self.color_type, backend=self.imdecode_backend
            )
        except (SyntaxError, cv2.error) as err:  # SyntaxError: Pillow's PNG
            raise OSError(str(err).strip()) from err
        if image is None:
            raise OSError("not an image, or one whose data ends early")
        return image

    def _pass_over(self, path: str, reason: str) -> None:
        """Record an unreadable image; raise where that is one too many."""
        if self.max_unreadable == 0:
            raise UserError(
                f"{path}: cannot be read as an image ({reason}). Restore the file, or "
                f"remove its entry from the annotation file"
            )
        if path in self._unreadable():
            return
        line = json.dumps([path, reason]) + "\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT  # an append is atomic
        descriptor = os.open(self._record, flags, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
        unreadable = self._unreadable()
        count = f"{len(unreadable)} of max_unreadable={self.max_unreadable}"
        if len(unreadable) > self.max_unreadable:
            listing = "\n".join(f"  {p} ({why})" for p, why in unreadable.items())
            raise UserError(
                f"{len(unreadable)} images cannot be read, and "
                f"max_unreadable={self.max_unreadable} of LoadReadableImage allows no "
                f"more:\n{listing}\nRestore these files, remove their entries from the "
                f"annotation file, or raise max_unreadable"
            )
        print_log(
            f"Passed over unreadable image {path}: {reason} ({count})",
            logger="current",
            level=logging.WARNING,
        )

    def _unreadable(self) -> dict[str, str]:
        """All images passed over so far, by any worker, with the reasons."""
        try:
            with open(self._record, encoding="utf-8") as file:
                # Another worker may be in the middle of the last line.
                return dict(json.loads(line) for line in file if line.endswith("\n"))
        except FileNotFoundError:
            return {}

    def __repr__(self) -> str:
        """Show all arguments."""
        return f"{super().__repr__()[:-1]}, max_unreadable={self.max_unreadable})"


def use_readable_images() -> None:
    """Let ``LoadImageFromFile`` in MMDetection's configs mean ``LoadReadableImage``.

    For the tools: an image that cannot be read is then named in any config's test
    pipeline, and configs keep the name that MMDetection's ``DetInferencer`` looks for.
    """
    TRANSFORMS.register_module(
        "LoadImageFromFile", force=True, module=LoadReadableImage
    )


def _discard(record: str) -> None:
    """Remove the record of a finished process."""
    if os.path.exists(record):
        os.remove(record)
