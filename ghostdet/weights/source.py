"""Fetch weights from a path, the Hugging Face Hub or an https address."""

from __future__ import annotations

import hashlib
import re
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import torch

from ghostdet.errors import UserError
from ghostdet.utils.files import sha256

HUB = "hf-hub:"
ADDRESS = ("http://", "https://")
REMOTE = (HUB, *ADDRESS)
# Files that timm and others publish under these names, the safe one first.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def fetch(checkpoint: str | Path) -> Path:
    """Find a file of weights, and download it if it is not on disk yet.

    Args:
        checkpoint: A path, ``hf-hub:OWNER/NAME`` (optionally ``@REVISION``), or an
            address. Any may end in ``#sha256=`` and the checksum of the file, or its
            first digits. Downloads stay in the cache of the Hub or of ``torch.hub``.

    Returns:
        The path of the file.

    Raises:
        UserError: If the file does not exist, cannot be downloaded, or its checksum
            is another.
    """
    name, mark, expected = str(checkpoint).partition("#sha256=")
    expected = expected.lower()
    if mark and not re.fullmatch("[0-9a-f]{8,64}", expected):
        raise UserError(
            f"#sha256={expected} is not a checksum, expected 8 to 64 hexadecimal digits"
        )
    if name.startswith(HUB):
        path = _from_hub(name.removeprefix(HUB))
    elif name.startswith(ADDRESS):
        path = _from_address(name, expected)
    else:
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(
                f"no file of weights at {name!r}; give a path, {HUB}OWNER/NAME or an "
                "https address"
            )
    if expected and not (actual := sha256(path)).startswith(expected):
        raise UserError(
            f"{name}: the file has another checksum.\n"
            f"  expected sha256 {expected}\n"
            f"  got      sha256 {actual}\n"
            f"Delete {path} and try again, or correct #sha256="
        )
    return path


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    for file in HUB_FILES:
        try:
            return Path(hf_hub_download(repository, file, revision=revision or None))
        except Exception as error:  # its kinds change with the version of the client
            offline = isinstance(error, LocalEntryNotFoundError)
            if isinstance(error, EntryNotFoundError) and not offline:
                continue  # the repository has no such file
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{HUB}{name} cannot be downloaded ({reason}); correct the name, or "
                f"download {HUB_FILES[0]} from https://huggingface.co/{repository} by "
                "other means and give its path (in a config, "
                "model.backbone.init_cfg.checkpoint)"
            ) from error
    raise UserError(f"{HUB}{name} has none of the files {', '.join(HUB_FILES)}")


def _from_address(address: str, expected: str) -> Path:
    """Download a file once, and check it before it gets its name."""
    # The name depends on all of the address, since many files are best.pth.
    digest = hashlib.sha256(address.encode()).hexdigest()[:8]
    name = urlsplit(address).path.rpartition("/")[2][-100:]
    path = Path(torch.hub.get_dir(), "checkpoints", f"{digest}-{name}")
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                address, str(path), hash_prefix=expected or None, progress=False
            )
    except (OSError, ValueError, HTTPException, RuntimeError) as error:
        # RuntimeError: the checksum.
        raise UserError(
            f"{address} cannot be downloaded ({error}); download it by other means and "
            "give its path"
        ) from error
    return path
