"""Large files from the web, resumed after an interruption and verified."""

from __future__ import annotations

import os
import time
from errno import ENOSPC
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from torchvision.datasets.utils import calculate_md5
from tqdm import tqdm

from ghostdet.errors import UserError

WAITS = (1, 4, 16, 64, 256)  # s, between attempts without a byte
TIMEOUT = 60  # s without a byte
_CHUNK = 1 << 20  # bytes


def download(url: str, path: str | Path, size: int, md5: str) -> Path:
    """Download a file whose size and checksum are known.

    What has arrived is kept in ``PATH.partial``, where another attempt, in this call
    or a later one, continues. Only attempts that bring nothing are counted.

    Args:
        url: Address of the file.
        path: Where to write it. An existing file is verified and kept.
        size: Size of the file in bytes.
        md5: Checksum of the file in hexadecimal.

    Returns:
        ``path``, which holds the expected file.

    Raises:
        UserError: If the address cannot be reached or has another file.
        OSError: If the disk cannot be written.
    """
    path = Path(path)
    if path.exists():
        _verify(path, size, md5)
        return path
    partial = path.with_name(f"{path.name}.partial")
    failures = 0
    with (
        open(partial, "ab") as file,
        tqdm(total=size, desc=path.name, unit="B", unit_scale=True) as bar,
    ):
        while (have := file.seek(0, os.SEEK_END)) < size:
            bar.update(have - bar.n)
            try:
                _append(url, file, have, size, bar)
                reason = "the connection ended early"
            except (HTTPException, OSError) as error:
                if getattr(error, "errno", None) == ENOSPC:
                    raise
                reason = str(error) or type(error).__name__
            now = file.seek(0, os.SEEK_END)
            failures = 0 if now > have else failures + 1
            if failures > len(WAITS):
                raise UserError(
                    f"{url} cannot be downloaded ({reason}). Run the same command "
                    f"again to continue at {now / 1e6:.0f} of {size / 1e6:.0f} MB, or "
                    f"put the file, fetched by other means, at {path.absolute()}"
                )
            if now < size:
                time.sleep(WAITS[max(0, failures - 1)])
    _verify(partial, size, md5)
    return partial.rename(path)


def _append(url: str, file: BinaryIO, start: int, size: int, bar: tqdm) -> None:
    """Append the bytes of one response to ``file``, from byte ``start`` on."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code < 500 and error.code not in (408, 429):  # will not pass
            raise UserError(f"{url} cannot be downloaded ({error})") from error
        raise
    with response:
        sent = response.headers["Content-Range" if start else "Content-Length"]
        expected = f"bytes {start}-{size - 1}/{size}" if start else str(size)
        if sent != expected:
            raise UserError(
                f"{url} sends {sent or 'an unknown length'}, expected {expected}: "
                "another file, perhaps the page of a proxy, or a server that cannot "
                f"resume (then delete {file.name})"
            )
        while chunk := response.read1(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def _verify(path: Path, size: int, md5: str) -> None:
    """Raise ``UserError`` if a file is not the expected one."""
    actual = path.stat().st_size, calculate_md5(path)
    if actual != (size, md5):
        raise UserError(
            f"{path}: not the expected file, perhaps a broken download.\n"
            f"  expected {size} bytes, md5 {md5}\n"
            f"  got      {actual[0]} bytes, md5 {actual[1]}\n"
            "Delete it and run the same command again"
        )
