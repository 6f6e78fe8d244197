"""Lay out your own data, and write a config for it."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from pprint import pformat
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from mmengine.config import Config

from ghostdet._configs import CONFIGS
from ghostdet.checks.rehearsal import RehearsalHook, RehearsedError, rehearsal
from ghostdet.config import load_config
from ghostdet.datasets.prepare.exports import Export, Photo, read_export
from ghostdet.engine.setup import init_weights
from ghostdet.errors import UserError
from ghostdet.utils.files import atomic_write, open_image
from ghostdet.weights.source import fetch

#: Configs of ``configs/own/`` by the names of ``--model``.
OWN = {
    "s": "light_s",
    "m": "light_m",
    "l": "light_l",
    "retinanet": "retinanet",
    "faster-rcnn": "faster_rcnn",
}
SIDES = (256, 320, 416, 512, 640)  # px, of squares as large as the input
_SMALL = 14  # px, the side of all but the smallest tenth of objects, at the least
_LONGEST = 3  # widths of the input are its height, at most, or the other way
_STEP = 32  # px, the highest stride that detectors pad to
_HELD_OUT = 0.2  # share of the images, if the export has no part for evaluation
_MOST_EPOCHS, _LEAST_ITERATIONS = 300, 50
_WIDTH = 75  # characters of a value's line


def init_project(
    name: str | Path,
    data: str | Path,
    model: str = "s",
    minutes: float = 5.0,
    epochs: float | None = None,
    seed: int = 0,
) -> tuple[Config, list[str], list[str]]:
    """Write annotations and a config to train on a dataset.

    ::

        NAME.py                              the config, a few lines
        NAME/{train,val,test}.json           COCO annotations; test only if DATA has it

    Args:
        name: The project, a path without a suffix.
        data: A folder that :func:`~ghostdet.datasets.prepare.read_export` reads. It is
            left as it is; without a part for evaluation, a fifth of its images, of
            which near-duplicates stay together, is held out.
        model: One of :data:`OWN`.
        minutes: Approximate training time on this machine.
        epochs: The length in passes over the images, in place of ``minutes``.
        seed: Seed for choosing the images that are held out.

    Returns:
        The config, lines about what was written, and warnings.

    Raises:
        UserError: If something has that name already, or the data cannot be read.
    """
    name = Path(name)
    name = name.with_suffix("") if name.suffix == ".py" else name
    if not name.name:
        raise UserError(f"NAME is {str(name)!r}, expected a name for the project")
    config = name.with_name(name.name + ".py")
    for path in (config, name, name.with_name(name.name + ".png")):
        if path.exists():
            raise UserError(f"{path} exists; give another name, or remove it")
    if model not in OWN:
        raise UserError(f"--model is {model!r}, expected {', '.join(OWN)}")
    length = minutes if epochs is None else epochs
    if not 0 < length < 1e6:
        raise UserError(f"--minutes or --epochs is {length:g}, expected 0 to 1e6")
    export = read_export(data)
    parts = _parts(export, seed)
    warnings = export.said()
    warnings += _class_warnings(export, parts)
    try:
        cfg, said = _write(name, data, export, parts, model, minutes, epochs)
    except BaseException:  # an interrupt too
        shutil.rmtree(name, ignore_errors=True)
        config.unlink(missing_ok=True)
        raise
    return cfg, said, warnings


def _write(
    name: Path,
    data: str | Path,
    export: Export,
    parts: dict[str, list[Photo]],
    model: str,
    minutes: float,
    epochs: float | None,
) -> tuple[Config, list[str]]:
    """Write the annotations and the config, and say what was written."""
    config = name.with_name(name.name + ".py")
    said = [f"{data}: {export.form}, {len(export.photos):,} images"]
    for part, photos in parts.items():
        coco = _coco(photos, export)
        path = name / f"{part}.json"
        atomic_write(path, json.dumps(coco))
        said.append(f"{path}: {len(photos):,} images, {_objects(photos):,} objects")
    values = dict(data_root=f"{name}/", images=f"{Path(data)}/")
    values["classes"] = tuple(export.classes)
    if len(repr(values["classes"])) > 4 * _WIDTH:
        values["classes"] = f"{name}/classes.txt"
        atomic_write(Path(values["classes"]), "".join(f"{c}\n" for c in export.classes))
    size, smallest = _image_size(parts["train"])
    values["image_size"] = size
    if not model.startswith(("s", "m", "l")):
        values["anchor_scale"] = int(np.clip(round(smallest / 8), 1, 5))
    base = f"/own/{OWN[model]}.py"
    (weights,) = init_weights(Config.fromfile(CONFIGS + base)).values()
    try:
        fetch(weights)
        said.append(f"starts from {weights}")
    except UserError as error:
        values["weights"] = None
        said.append(f"starts from random weights: {error.text.partition(';')[0]}")
    head = f"# {len(export.photos):,} images, {_objects(export.photos):,} objects: "
    head += f"ghostdet init {name} {data}"
    if "test" in parts:
        values["test_file"] = "test.json"

    def write(length: int) -> Config:
        text = f"{head}\n_base_ = __import__('ghostdet').CONFIGS + '{base}'\n\n"
        for key, value in {**values, "max_iters": length}.items():
            text += f"{key} = {pformat(value, width=_WIDTH, compact=True)}\n"
        text += "\n__import__('ghostdet').derive(globals())\n"
        atomic_write(config, text)
        return load_config(config)

    cfg = write(_LEAST_ITERATIONS)
    each = len(parts["train"]) / cfg.train_dataloader.batch_size  # iterations, an epoch
    if epochs is None:
        length = min(60 * minutes / _seconds(cfg), _MOST_EPOCHS * each)
        digits = max(len(str(int(length))) - 2, 0)
        length = max(int(round(length, -digits)), _LEAST_ITERATIONS)
    else:
        length = max(round(epochs * each), 2)
    cfg = write(length)
    width, height = size
    text = (
        f"{config}: light {model.upper()}" if len(model) == 1 else f"{config}: {model}"
    )
    said.append(
        f"{text} at {width}x{height} px, {length:,} iterations, "
        f"{length / each:,.0f} passes over the images"
    )
    return cfg, said


def _parts(export: Export, seed: int) -> dict[str, list[Photo]]:
    """Return the images of each part, after holding some out if none are."""
    known = {photo.part for photo in export.photos if photo.objects} - {""}
    # Nothing to train on.
    alone = known == {"val"} and all(p.part for p in export.photos if p.objects)
    if alone:
        export.note("parts are ignored, as none is for training", "val")
    for photo in export.photos:
        if photo.part and photo.part not in known:
            text = "images are in a part without any object, and are left out"
            export.note(text, photo.path)
            photo.part = ""
        elif not photo.part and {"train", "val"} <= known:
            text = "images are in no part (train, val or test), and are left out"
            export.note(text, photo.path)
        elif alone or ("train" not in known and photo.part != "val"):
            photo.part = "train"  # one part, whatever its name
        else:
            photo.part = photo.part or "train"
    train = [photo for photo in export.photos if photo.part == "train"]
    if alone or "val" not in known:
        groups = list(_groups(export, train).values())
        random.Random(seed).shuffle(groups)
        left = math.ceil(_HELD_OUT * len(train))
        left = max(left, min(map(len, groups[1:]), default=0))
        for group in groups[1:]:
            if len(group) <= left:
                left -= len(group)
                for photo in group:
                    photo.part = "val"
    parts = {
        part: [photo for photo in export.photos if photo.part == part]
        for part in ("train", "val", "test")
    }
    for part in ("train", "val"):
        if not _objects(parts[part]):
            count = sum(bool(photo.objects) for photo in export.photos)
            raise UserError(
                f"{export.root} has {count:,} images with objects, and none is left "
                f"for {part}; give at least two, or try another --seed"
            )
    return {part: photos for part, photos in parts.items() if photos}


def _groups(export: Export, photos: Sequence[Photo]) -> dict[Any, list[Photo]]:
    """Group images that look the same, or that Roboflow made of one."""
    names: dict[str, Any] = {}
    groups = defaultdict(list)
    for photo in photos:
        try:
            with open_image(photo.path) as image:
                image.draft("L", (64, 64))
                small = np.asarray(image.convert("L").resize((9, 8)), int)
            # A difference hash: whether each pixel is brighter than its neighbour.
            digest = (small[:, 1:] > small[:, :-1]).tobytes()
        except OSError:  # Pillow's
            export.note("images are damaged; restore or remove them", photo.path)
            digest = photo.path
        name = photo.path.with_name(photo.path.name.partition(".rf.")[0])
        groups[names.setdefault(name, digest)].append(photo)
    if max(map(len, groups.values())) > len(photos) / 2:  # frames of a fixed camera
        return {photo.path: [photo] for photo in photos}
    return groups


def _objects(photos: Sequence[Photo]) -> int:
    return sum(len(photo.objects) for photo in photos)


def _class_warnings(export: Export, parts: dict[str, list[Photo]]) -> list[str]:
    """Say what may be wrong with classes and labels."""
    counts = {
        part: Counter(o["category"] for photo in photos for o in photo.objects)
        for part, photos in parts.items()
    }
    empty = sum(not photo.objects for photos in parts.values() for photo in photos)
    found = [f"{empty:,} images have no object, and are background"] if empty else []
    for name in export.classes:
        for part in ("train", "val"):
            if counts[part][name] < 2:
                number = "one object" if counts[part][name] else "no object"
                found.append(f"class {name!r} has {number} in {part}")
    spelt = defaultdict(list)
    for name in export.classes:
        spelt[name.lower().replace("-", " ").replace("_", " ")].append(name)
    for names in spelt.values():
        if len(names) > 1:
            text = "differ only in spelling; are they one class?"
            found.append(f"classes {', '.join(names)} {text}")
    return found


def _coco(photos: Sequence[Photo], export: Export) -> dict:
    """Give a part in COCO's format, with ids from 1."""
    ids = {name: number for number, name in enumerate(export.classes, 1)}
    images, annotations = [], []
    for number, photo in enumerate(photos, 1):
        width, height = photo.size
        path = photo.path.relative_to(export.root).as_posix()
        images.append(dict(id=number, file_name=path, width=width, height=height))
        for found in photo.objects:
            keys = {key: value for key, value in found.items() if key != "category"}
            keys |= dict(image_id=number, category_id=ids[found["category"]])
            annotations.append(dict(id=len(annotations) + 1, **keys))
    categories = [dict(id=number, name=name) for name, number in ids.items()]
    return dict(images=images, annotations=annotations, categories=categories)


def _image_size(photos: Sequence[Photo]) -> tuple[tuple[int, int], float]:
    """Choose the size at which all but the smallest objects can be seen.

    Returns:
        Width and height in px, and the side of an object at the tenth percentile.
    """
    sizes = np.array([photo.size for photo in photos], float)
    ratio = np.median(sizes[:, 0] / sizes[:, 1])
    ratio = math.sqrt(np.clip(ratio, 1 / _LONGEST, _LONGEST))
    sides = [
        math.sqrt(o["area"] / math.prod(photo.size))  # in a square image of side 1
        for photo in photos
        for o in photo.objects
    ]
    small = float(np.percentile(sides, 10))
    side = next((side for side in SIDES if side * small >= _SMALL), SIDES[-1])
    size = (side * ratio, side / ratio)
    width, height = (max(round(value / _STEP), 1) * _STEP for value in size)
    return (width, height), side * small


def _seconds(cfg: Config) -> float:
    """Measure an iteration of the training on this machine, in seconds."""
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        with rehearsal(cfg, folder, weights=False) as runner, suppress(RehearsedError):
            runner.register_hook(RehearsalHook(4))
            runner.train()
        return runner.message_hub.get_scalar("train/time").min()
