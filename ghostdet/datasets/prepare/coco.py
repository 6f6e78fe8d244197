"""COCO 2017, downloaded or linked, laid out as the configs expect it."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ghostdet.datasets.prepare.download import download
from ghostdet.errors import ConfigError, UserError

URL = "http://images.cocodataset.org"


class _Part(NamedTuple):
    address: str  # archive, which holds one folder with the part's name
    size: int  # bytes of the archive
    md5: str  # checksum of the archive
    images: int  # number of JPEG files in the folder
    files: tuple[str, ...] = ()  # other required files


# MD5: the same in PaddlePaddle/PaddleDetection (ppdet/utils/download.py),
# mlcommons/training (object_detection/download_dataset.sh) and mlverse/torchvision
# (R/dataset-coco.R). Sizes: published logs of wget and of Keras's get_file, and the
# mirror s3://fast-ai-coco. Numbers of images: the JSON files.
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
) -> Path:
    """Lay out COCO 2017 as ``configs/_base_/datasets/coco_detection.py`` expects.

    ::

        root/annotations/instances_{train,val}2017.json
        root/train2017/*.jpg    118,287 images
        root/val2017/*.jpg      5,000 images

    Archives of 20 GB are downloaded, verified, unpacked and deleted one by one. A
    part's folder gets its name once it is complete. Another call continues after an
    interruption, and skips complete parts. Call it from one process.

    Args:
        root: Folder to write into; created if missing.
        link: Folder that holds COCO already. Its parts are checked and linked, and
            nothing is downloaded.
        parts: Some of ``annotations``, ``val2017`` and ``train2017``.

    Returns:
        ``root`` as a path.

    Raises:
        UserError: If a part cannot be downloaded, the disk is too small, or a folder
            in its place is not that part of COCO.
    """
    root = Path(root)
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ConfigError(f"parts are {', '.join(PARTS)}, not {', '.join(unknown)}")
    missing = [name for name in PARTS if name in parts and not (root / name).exists()]
    folders = [root / name for name in parts if name not in missing]
    if link is not None:
        folders += [Path(link) / name for name in missing]
    problems = [f"  {path}: {lack}" for path in folders if (lack := _problem(path))]
    if problems:
        raise UserError(
            "\n".join(["not COCO 2017 in its usual layout:", *problems])
            + f"\nExpected the folders {', '.join(PARTS)}. Remove these, or give "
            "another folder with --data-root DIR or --link DIR"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        if link is None:
            _require_space(root, [PARTS[name] for name in missing])
        for name in missing:
            if link is None:
                _fetch(root, name)
            else:
                (root / name).symlink_to((Path(link) / name).resolve())
    except OSError as error:
        raise UserError(
            f"{root}: COCO cannot be written there ({error}); give another folder "
            "with --data-root DIR, or make room and run the same command again"
        ) from error
    return root


def _problem(folder: Path) -> str:
    """Say what a folder lacks to be the part with its name; '' if nothing."""
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


def _require_space(root: Path, parts: Sequence[_Part]) -> None:
    """Raise ``UserError`` if the disk cannot take the parts and one archive."""
    archives = [root / Path(part.address).name for part in parts]
    paths = [*archives, *(path.with_name(f"{path.name}.partial") for path in archives)]
    arrived = sum(path.stat().st_size for path in paths if path.exists())
    # JPEG files are stored, not compressed, and each archive is deleted before the
    # next one is downloaded.
    sizes = [part.size for part in parts]
    size = sum(sizes) + max(sizes, default=0) - arrived
    free = shutil.disk_usage(root).free
    if free < size:
        raise UserError(
            f"{root}: {free / 1e9:.1f} GB are free, and {size / 1e9:.1f} GB are needed "
            "(archives are deleted once they are unpacked). Make room, give a folder "
            "on another disk with --data-root DIR, or --link an existing COCO"
        )


def _fetch(root: Path, name: str) -> None:
    """Download and unpack one part."""
    part = PARTS[name]
    archive = root / Path(part.address).name
    download(f"{URL}/{part.address}", archive, part.size, part.md5)
    scratch = root / f".{name}.unpacking"
    shutil.rmtree(scratch, ignore_errors=True)  # left by an interrupted call
    # The checksum says that this is COCO's archive, which has no hostile names.
    with zipfile.ZipFile(archive) as file:
        for member in tqdm(file.namelist(), f"unpacking {archive.name}", unit="file"):
            file.extract(member, scratch)
    (scratch / name).rename(root / name)
    shutil.rmtree(scratch)
    archive.unlink()
