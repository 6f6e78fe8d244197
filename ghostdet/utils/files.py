"""Atomic and failing writes, checksums, large images, and JSON in any encoding."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO
from unittest.mock import patch

from mmengine.logging import print_log
from PIL import Image

from ghostdet.errors import UserError

PARTIAL = ".partial"  # suffix of a file that is being written
RECORD = "run.json"  # of a training, in its work directory
_OPENING = threading.Lock()  # since the limit is global


def check_writable(folder: str | Path, option: str = "--work-dir") -> None:
    """Make a folder and check that files can be written in it.

    Raises:
        UserError: If the folder cannot be made or written.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"{str(folder)!r} cannot be written ({error.strerror}); give another "
            f"folder with {option}"
        ) from error


def atomic_write(path: Path, content: bytes | memoryview | str) -> None:
    """Write a file under another name, flush it to the disk and rename it.

    The folder is made anew if it was deleted.

    Args:
        path: The file. If anything fails, it keeps its earlier content.
        content: The new content.

    Raises:
        UserError: If the file cannot be written, for example for lack of space.
    """
    content = content.encode() if isinstance(content, str) else content
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        if os.name == "posix":
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the new name
            finally:
                os.close(folder)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); earlier files are "
            "intact. Make room and try again; training continues with --resume"
        ) from error


@contextmanager
def expendable(what: str) -> Iterator[None]:
    """Turn any error into a warning: a log is not worth the run."""
    try:
        yield
    except Exception as error:
        text = f"{what} is incomplete, the run continues: {error.__cause__ or error}"
        print_log(text, logger="current", level=logging.WARNING)  # once, it filters


@contextmanager
def atomic_outputs(path: Path) -> Iterator[Path]:
    """Open a temporary folder, and move its files beside ``path`` at the end.

    ``path`` itself is moved last. After an exception, nothing is moved.

    Yields:
        The temporary folder.

    Raises:
        UserError: If the files cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.name}."
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as folder:
            yield Path(folder)
            files = sorted(Path(folder).iterdir(), key=lambda f: f.name == path.name)
            for file in files:
                os.replace(file, path.parent / file.name)
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be written ({error.strerror}); give another file "
            "with --out, or make room"
        ) from error


def list_folder(folder: str) -> frozenset[str]:
    """List a folder, or nothing if it does not exist."""
    folder = folder or "."
    return frozenset(os.listdir(folder) if os.path.isdir(folder) else ())


def sha256(path: Path) -> str:
    """Compute the checksum of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def open_json(path: str | Path, mode: str = "r") -> TextIO:
    """Open a file in UTF-8, with or without a byte order mark, UTF-16 or UTF-32."""
    with open(path, "rb") as file:
        encoding = json.detect_encoding(file.read(4))
    return open(path, mode, encoding=encoding)


def open_image(path: str | Path) -> Image.Image:
    """Open an image with Pillow, which refuses aerial photographs for their size."""
    with _OPENING, patch.object(Image, "MAX_IMAGE_PIXELS", None):
        return Image.open(path)
