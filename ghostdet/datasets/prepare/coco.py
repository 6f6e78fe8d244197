"""COCO 2017, downloaded or linked, laid out as the configs expect it."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ghostdet.datasets.prepare.download import download
from ghostdet.errors import ConfigError, UserError

URL = "http://images.cocodataset.org"


class _Part(NamedTuple):
    address: str  # of the archive, which holds one folder with the part's name
    size: int  # of the archive, in bytes
    md5: str  # of the archive
    images: int  # JPEG files in the folder
    files: tuple[str, ...] = ()  # others that are needed


# MD5: alike in PaddlePaddle/PaddleDetection (ppdet/utils/download.py),
# mlcommons/training (object_detection/download_dataset.sh) and mlverse/torchvision
# (R/dataset-coco.R). Sizes: what the server announced, alike in published logs of wget
# and of Keras's get_file, and in listings of fast.ai's mirror, s3://fast-ai-coco.
# Numbers of images: https://cocodataset.org/#download, in full in its JSON files.
PARTS = {
    "annotations": _Part(
        "annotations/annotations_trainval2017.zip",
        252_907_541,
        "f4bbac642086de4f52a3fdda2de5fa2c",
        0,
        ("instances_train2017.json", "instances_val2017.json"),
    ),
    "val2017": _Part(
        "zips/val2017.zip", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80", 5_000
    ),
    "train2017": _Part(
        "zips/train2017.zip",
        19_336_861_798,
        "cced6f7f71b7629ddf16f17bbcfab6b2",
        118_287,
    ),
}


def prepare_coco(
    root: str | Path,
    *,
    link: str | Path | None = None,
    parts: Sequence[str] = tuple(PARTS),
    keep_archives: bool = False,
) -> Path:
    """Lay out COCO 2017 as ``configs/_base_/datasets/coco_detection.py`` expects.

    ::

        root/annotations/instances_{train,val}2017.json
        root/train2017/*.jpg    118,287 images
        root/val2017/*.jpg      5,000 images

    Archives of 20 GB are downloaded, verified, unpacked and deleted one by one. A
    part's folder gets its name when it is whole, so an interrupted call is mended by
    another one, and a part that is there costs nothing. Call it from one process.

    Args:
        root: Folder to write into; created where it is missing.
        link: Folder that holds COCO already. Its parts are checked and linked to, and
            nothing is downloaded.
        parts: Of ``annotations``, ``val2017`` and ``train2017``.
        keep_archives: Whether to leave the archives in ``root``.

    Returns:
        ``root`` as a path.

    Raises:
        UserError: If a part cannot be downloaded or unpacked, the disk is too small,
            or a folder is there that is not that part of COCO.

    Example:
        >>> prepare_coco('data/coco', parts=['val2017'])  # doctest: +SKIP
        PosixPath('data/coco')
    """
    root = Path(root)
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ConfigError(f"parts are {', '.join(PARTS)}, not {', '.join(unknown)}")
    missing = [name for name in PARTS if name in parts and not _is_there(root / name)]
    try:
        if link is not None:
            _link(Path(link), root, missing)
        elif missing:
            root.mkdir(parents=True, exist_ok=True)
            sizes = [PARTS[name].size - _arrived(root, PARTS[name]) for name in missing]
            # JPEG files are stored, not compressed; each archive is deleted before
            # the next one, unless it is kept.
            whole = [PARTS[name].size for name in missing]
            _require(root, sum(sizes) + (sum(whole) if keep_archives else max(whole)))
            for name in missing:
                _fetch(root, name, keep_archives)
    except OSError as error:
        raise UserError(
            f"{root}: COCO cannot be written there ({error}); give another folder "
            "with --data-root DIR"
        ) from error
    return root


def _is_there(folder: Path) -> bool:
    """Whether a part is in its place and whole.

    Raises:
        UserError: If another folder is there.
    """
    if not os.path.lexists(folder):
        return False
    if problem := _problem(folder):
        raise UserError(
            f"{folder}: {problem}, so it is not COCO's. Remove it, or give another "
            "folder with --data-root DIR"
        )
    return True


def _problem(folder: Path) -> str:
    """What a folder lacks of the part with its name; '' if nothing."""
    part = PARTS[folder.name]
    try:
        names = os.listdir(folder)
    except OSError as error:
        return f"cannot be read as a folder ({error.strerror})"
    lacking = sorted(set(part.files) - set(names))
    if lacking:
        return f"has no {', '.join(lacking)}"
    images = sum(name.endswith(".jpg") for name in names)
    if images < part.images:
        return f"has {images:,} images, expected {part.images:,}"
    return ""


def _link(source: Path, root: Path, names: Sequence[str]) -> None:
    """Link to parts elsewhere, after a look at all of them."""
    problems = [
        f"  {source / name}: {problem}"
        for name in names
        if (problem := _problem(source / name))
    ]
    if problems:
        raise UserError(
            "\n".join([f"{source}: not COCO 2017 in its usual layout:", *problems])
            + f"\nIt is to hold the folders {', '.join(PARTS)}"
        )
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).symlink_to((source / name).resolve(), target_is_directory=True)


def _arrived(root: Path, part: _Part) -> int:
    """Bytes of an archive that are on disk."""
    archive = root / Path(part.address).name
    paths = (archive, archive.with_name(f"{archive.name}.partial"))
    return sum(path.stat().st_size for path in paths if path.exists())


def _require(root: Path, size: int) -> None:
    """See that so many bytes are free."""
    free = shutil.disk_usage(root).free
    if free < size:
        raise UserError(
            f"{root}: {free / 1e9:.1f} GB are free, and {size / 1e9:.1f} GB are needed "
            "(archives are deleted once they are unpacked). Make room, give a folder "
            "on another disk with --data-root DIR, or --link an existing COCO"
        )


def _fetch(root: Path, name: str, keep: bool) -> None:
    """Download and unpack one part."""
    part = PARTS[name]
    archive = root / Path(part.address).name
    download(f"{URL}/{part.address}", archive, part.size, part.md5)
    scratch = root / f".{name}.unpacking"
    shutil.rmtree(scratch, ignore_errors=True)  # of a call that was interrupted
    try:
        _unpack(archive, scratch, name)
        if problem := _problem(scratch / name):
            raise UserError(f"{archive}: what was unpacked {problem}")
        (scratch / name).rename(root / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if not keep:
        archive.unlink()


def _unpack(archive: Path, folder: Path, name: str) -> None:
    """Unpack files of ``name/``, and refuse an archive with any other."""
    try:
        with zipfile.ZipFile(archive) as file:
            members = [info for info in file.infolist() if not info.is_dir()]
            for info in members:
                parts = info.filename.split("/")
                if (
                    parts[0] != name
                    or not {"", ".", ".."}.isdisjoint(parts)
                    or "\\" in info.filename
                    or stat.S_ISLNK(info.external_attr >> 16)
                ):
                    raise UserError(
                        f"{archive}: holds {info.filename!r}, expected files in "
                        f"{name}/ alone. Nothing was unpacked"
                    )
            _require(archive.parent, sum(info.file_size for info in members))
            for info in tqdm(members, desc=f"unpacking {archive.name}", unit="file"):
                file.extract(info, folder)
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{archive}: cannot be unpacked ({error}). Delete it and run the same "
            "command again"
        ) from error
