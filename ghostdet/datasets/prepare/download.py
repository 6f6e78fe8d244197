"""Large files from the web: resumed where they broke off, used once they are whole."""

from __future__ import annotations

import hashlib
import time
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from ghostdet.errors import UserError

WAITS = (1, 4, 16, 64, 256)  # s, between attempts that bring nothing
TIMEOUT = 60  # s without a byte
_CHUNK = 1 << 20  # bytes
_LATER = (408, 429)  # of the client errors, those that may pass


def download(url: str, path: str | Path, size: int, md5: str) -> Path:
    """Download a file whose size and checksum are known.

    What has arrived is kept in ``PATH.partial``; another attempt, in this call or a
    later one, goes on from there where the server supports HTTP Range, and begins
    again where not. An attempt that brought something does not count against the
    number of attempts.

    Args:
        url: Its address.
        path: Where to. A file that is there is verified and kept.
        size: Of the file, in bytes.
        md5: Its checksum, in hexadecimal.

    Returns:
        ``path``, which holds the expected file.

    Raises:
        UserError: If the address cannot be reached, has another file, or the disk
            cannot be written.
    """
    path = Path(path)
    if path.exists():
        _verify(path, url, size, md5)
        return path
    partial = path.with_name(f"{path.name}.partial")
    failures = 0
    with tqdm(total=size, desc=path.name, unit="B", unit_scale=True) as bar:
        while (have := partial.stat().st_size if partial.exists() else 0) < size:
            bar.update(have - bar.n)
            try:
                _fetch(url, partial, have, size, bar)
                reason = "the connection ended early"
            except (HTTPException, _NetworkError) as error:
                reason = str(error) or type(error).__name__
            now = partial.stat().st_size if partial.exists() else 0
            failures = 0 if now > have else failures + 1
            if failures > len(WAITS):
                raise UserError(
                    f"{url} cannot be downloaded ({reason}). Run the same command "
                    f"again to go on at {now / 1e6:.0f} of {size / 1e6:.0f} MB, or "
                    f"put the file, fetched by other means, at {path.absolute()}"
                )
            if now < size:
                time.sleep(WAITS[max(0, failures - 1)])
    _verify(partial, url, size, md5)
    return partial.rename(path)


class _NetworkError(Exception):
    """The transfer failed, and may succeed later."""


def _fetch(url: str, partial: Path, have: int, size: int, bar: tqdm) -> None:
    """Append to ``partial`` what the server sends in one response."""
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if 400 <= error.code < 500 and error.code not in _LATER:
            raise UserError(
                f"{url} cannot be downloaded (HTTP {error.code} {error.reason})"
            ) from error
        raise _NetworkError(f"HTTP {error.code} {error.reason}") from error
    except OSError as error:
        raise _NetworkError(getattr(error, "reason", error)) from error
    with response:
        resumed = response.status == 206
        start = have if resumed else 0
        length = response.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _NetworkError("an answer of unknown length, perhaps a proxy's page")
        sent = response.headers.get("Content-Range", "")
        if resumed and not sent.startswith(f"bytes {start}-"):
            raise _NetworkError(f"asked for bytes {start}-, got {sent or 'others'}")
        total = start + int(length)
        if total != size:
            raise UserError(
                f"{url} has {total} bytes, expected {size}: another file, perhaps a "
                "page of a proxy"
            )
        bar.update(start - bar.n)
        try:
            file = partial.open("ab" if resumed else "wb")
        except OSError as error:
            raise UserError(f"{partial}: cannot be written ({error})") from error
        with file:
            while True:
                try:
                    chunk = response.read1(_CHUNK)
                except OSError as error:
                    raise _NetworkError(error) from error
                if not chunk:
                    return
                try:
                    file.write(chunk)
                    file.flush()
                except OSError as error:
                    raise UserError(
                        f"{partial}: cannot be written ({error.strerror}). Make room "
                        "and run the same command again to go on"
                    ) from error
                bar.update(len(chunk))


def _verify(path: Path, url: str, size: int, md5: str) -> None:
    """See that a file is the expected one; delete what was downloaded if not."""
    actual = path.stat().st_size
    if actual == size:
        digest = hashlib.md5(usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        actual = f"md5 {digest.hexdigest()}"
        if actual == f"md5 {md5}":
            return
    if path.suffix == ".partial":
        path.unlink()
    raise UserError(
        f"{path}: not the file that {url} should be, perhaps a broken download.\n"
        f"  expected {size} bytes, md5 {md5}\n"
        f"  got      {f'{actual} bytes' if isinstance(actual, int) else actual}\n"
        f"{'It was deleted; run' if path.suffix == '.partial' else 'Delete it and run'}"
        " the same command again"
    )
