"""Files: written at once or not at all, and their checksums."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdet.errors import UserError

if TYPE_CHECKING:
    pass


import contextlib
import shutil


def check_writable(folder: str | Path, option: str = "--work-dir") -> None:
    """Make a folder and see that files can be written in it.

    Args:
        folder: Its path.
        option: The option that names another, for the message.

    Raises:
        UserError: If they cannot.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"{str(folder)!r} cannot be written ({error.strerror}); give another "
            f"folder with {option}"
        ) from error


PARTIAL = ".partial"


def atomic_write(path: Path, content: bytes | memoryview | str) -> None:
    """Write a file under another name, flush it to the disk and rename it.

    Args:
        path: The file, which stays as it is if anything fails.
        content: What it is to hold.

    Raises:
        UserError: If it cannot be written, such as for want of space.
    """
    content = content.encode() if isinstance(content, str) else content
    partial = path.with_name(path.name + PARTIAL)
    try:
        free = shutil.disk_usage(path.parent).free
        if free < len(content):
            raise OSError(
                f"it needs {len(content) / 1e6:.0f} MB, and the disk has "
                f"{free / 1e6:.0f} MB left"
            )
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); what was written "
            "before is as it was. Make room, and try again; a run goes on with --resume"
        ) from error


@contextmanager
def atomic_outputs(path: Path) -> Iterator[Path]:
    """A folder beside ``path``, whose files are moved there if all goes well.

    The one called as ``path`` is moved last.

    Raises:
        UserError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be written ({error.strerror}); give another file "
            "with --out"
        ) from error
    with holder as folder:
        try:
            yield Path(folder)
            # The one without which the others are of no use comes last.
            for file in sorted(
                Path(folder).iterdir(), key=lambda f: f.name == path.name
            ):
                os.replace(file, path.parent / file.name)
        except OSError as error:
            raise UserError(
                f"{str(path)!r} cannot be written ({error.strerror}); give another "
                "file with --out, or make room"
            ) from error


def sha256(path: Path) -> str:
    """Checksum of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
