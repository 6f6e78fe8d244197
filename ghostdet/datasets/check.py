"""A check of a data set before a run, where mistakes cost seconds, not hours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mmdet.registry import DATASETS
from mmengine import fileio

from ghostdet.errors import ConfigError, UserError

# The keys without which CocoDataset.parse_data_info or pycocotools fails.
_COCO_KEYS = {
    "images": {"id", "file_name", "width", "height"},
    "annotations": {"id", "image_id", "category_id", "bbox", "area"},
    "categories": {"id", "name"},
}


def check_dataset(dataset_cfg: dict) -> None:
    """Check that a data set is where its configuration says, and is COCO.

    MMDetection's own words for a wrong class name are "need at least one array to
    concatenate". Here, the files, the layout of the JSON and the class names are
    checked, and the error says what to type. Images are not opened:
    :class:`~ghostdet.datasets.LoadReadableImage` does that as they are needed.

    All class names have to be in the annotation file, in its order: MMDetection leaves
    out those that are not and numbers the others as the file does, in silence.

    The annotation file is parsed once here and again by MMDetection: about 10 s
    more for the 450 MB of COCO's training set.

    Args:
        dataset_cfg: Configuration of a :class:`mmdet.datasets.CocoDataset`, or of a
            wrapper that holds one as ``dataset`` or several as ``datasets``. A
            data set of another kind is not checked.

    Raises:
        UserError: If the annotation file or the image directory is missing, the
            file is not JSON or not COCO, nothing in it bears one of the classes, or
            its classes are fewer or in another order.

    Example:
        >>> cfg = dict(type='RepeatDataset', times=2, dataset=dict(
        ...     type='CocoDataset', data_root='nowhere', ann_file='train.json',
        ...     data_prefix=dict(img='train/')))
        >>> check_dataset(cfg)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ghostdet.errors.UserError: nowhere/train.json: no such annotation file. ...
    """
    if "datasets" in dataset_cfg:
        for cfg in dataset_cfg["datasets"]:
            check_dataset(cfg)
        return
    if "dataset" in dataset_cfg:
        check_dataset(dataset_cfg["dataset"])
        return

    # Needs MMCV's operators, which importing this module must not.
    from mmdet.datasets import CocoDataset, CocoPanopticDataset

    kind = dataset_cfg["type"]
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(kind, type) and issubclass(kind, CocoDataset)):
        return
    if issubclass(kind, CocoPanopticDataset):
        return
    classes = (dataset_cfg.get("metainfo") or {}).get("classes")
    if isinstance(classes, str):
        raise ConfigError(
            f"metainfo.classes is the word {classes!r}, expected a tuple; write "
            f"classes=({classes!r},)"
        )
    # Built without reading anything, for its resolved paths and class names.
    cfg = dataset_cfg.copy()
    cfg.update(pipeline=[], lazy_init=True)
    try:
        dataset = DATASETS.build(cfg)
    except TypeError as error:
        raise ConfigError(f"the data set cannot be built: {error}") from error
    _check_files(dataset, dataset_cfg)
    coco = _load_coco(dataset)
    _check_values(dataset.ann_file, coco, evaluated=dataset.test_mode)
    _check_classes(dataset, coco)
    _check_images(dataset, coco)


def _check_files(dataset: Any, cfg: dict) -> None:
    """Check that the annotation file and the image directory exist."""
    images = dataset.data_prefix.get("img", "")
    expected = [cfg.get("ann_file", ""), cfg.get("data_prefix", {}).get("img", "")]
    remedy = (
        "Give the directory of the data set with --data-root DIR. It must hold\n"
        + "\n".join(f"  {fileio.join_path('DIR', path)}" for path in expected)
    )
    if not fileio.isfile(dataset.ann_file, dataset.backend_args):
        raise UserError(f"{dataset.ann_file}: no such annotation file. {remedy}")
    if images and not fileio.isdir(images, dataset.backend_args):
        raise UserError(f"{images}: no such image directory. {remedy}")


def _load_coco(dataset: Any) -> dict:
    """Parse the annotation file and check its outline."""
    path = dataset.ann_file
    try:
        coco = json.loads(fileio.get(path, dataset.backend_args))
    except json.JSONDecodeError as err:
        raise UserError(
            f"{path}: not JSON: line {err.lineno}, column {err.colno}: {err.msg}. "
            f"Expected COCO annotations; download or export the file again"
        ) from err
    except UnicodeDecodeError as err:
        raise UserError(
            f"{path}: not JSON but binary data ({err.reason} at byte {err.start}). "
            f"Expected COCO annotations; give the .json file as ann_file"
        ) from err
    found = coco if isinstance(coco, dict) else {}
    missing = [key for key in _COCO_KEYS if not isinstance(found.get(key), list)]
    if missing:
        kind = f"keys {_shorten(list(coco))}" if found else type(coco).__name__
        raise UserError(
            f"{path}: JSON but not COCO annotations: no list {', '.join(missing)} "
            f"(found {kind}). Expected an object with the lists {', '.join(_COCO_KEYS)}"
        )
    for name, keys in _COCO_KEYS.items():
        for i, entry in enumerate(coco[name]):
            if not isinstance(entry, dict) or not keys <= entry.keys():
                raise UserError(
                    f"{path}: JSON but not COCO annotations for detection: {name}[{i}] "
                    f"is {json.dumps(entry)[:100]}. Expected an object with the keys "
                    f"{', '.join(sorted(keys))}"
                )
    return coco


def _check_values(path: str, coco: dict, evaluated: bool) -> None:
    """Check identifiers, sizes and boxes, on which MMDetection or pycocotools stop."""
    for name in ("images", "annotations"):
        seen: set = set()
        for entry in coco[name]:
            if entry["id"] in seen:
                raise UserError(
                    f"{path}: two of its {name} have the id {entry['id']}. Give each "
                    "its own"
                )
            seen.add(entry["id"])
    for image in coco["images"]:
        if not all(_is_number(image[key]) for key in ("width", "height")):
            raise UserError(
                f"{path}: width and height of image {image['id']} are "
                f"{image['width']!r} and {image['height']!r}. Expected numbers of px"
            )
    for annotation in coco["annotations"]:
        box, area = annotation["bbox"], annotation["area"]
        if not (
            isinstance(box, list)
            and len(box) == 4
            and all(map(_is_number, [*box, area]))
        ):
            raise UserError(
                f"{path}: annotation {annotation['id']} has bbox "
                f"{json.dumps(box)[:100]} and area {json.dumps(area)[:20]}. Expected "
                "[x, y, width, height] in px, and a number"
            )
        if evaluated and "iscrowd" not in annotation:
            raise UserError(
                f"{path}: annotation {annotation['id']} has no iscrowd, without which "
                "COCO's evaluation stops. Write iscrowd=0 into each"
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_images(dataset: Any, coco: dict) -> None:
    """Check that not all of a sample of images are missing, as in another folder."""
    sample = coco["images"][:: max(1, len(coco["images"]) // 10)]
    paths = [
        fileio.join_path(dataset.data_prefix.get("img", ""), image["file_name"])
        for image in sample
    ]
    if not any(fileio.isfile(path, dataset.backend_args) for path in paths):
        raise UserError(
            f"{dataset.ann_file}: no image it lists is there, such as {paths[0]}. Set "
            "data_prefix=dict(img=...) to their folder"
        )


def _check_classes(dataset: Any, coco: dict) -> None:
    """Check that the file has images, and objects of the configured classes."""
    path = dataset.ann_file
    classes = dataset.metainfo["classes"]
    ids = {category["name"]: category["id"] for category in coco["categories"]}
    present = [name for name in ids if name in classes]
    if not present:
        raise UserError(
            f"{path}: none of the configured classes is in the file.\n"
            f"  configured: {_shorten(classes)}\n"
            f"  in the file: {_shorten(list(ids))}\n"
            f"Set metainfo=dict(classes=(...)) to names from the file, and num_classes "
            f"of the head to their number"
        )
    if not coco["images"]:
        raise UserError(f"{path}: lists no images. Expected at least one")
    wanted = {ids[name] for name in present}
    objects = [a for a in coco["annotations"] if a["category_id"] in wanted]
    if not any(
        not a.get("iscrowd") and a["area"] > 0 and min(a["bbox"][2:]) >= 1
        for a in objects
    ):
        raise UserError(
            f"{path}: none of its {len(coco['annotations'])} annotations is an object "
            f"of the classes {_shorten(present)} ({len(objects)} crowds or boxes of "
            "less than 1 px). Give a file with annotated objects"
        )
    # CocoDataset.cat2label numbers the classes that are present in the order of the
    # file's categories, whatever the order of metainfo.
    if present != list(classes):
        missing = [name for name in classes if name not in ids]
        problem = (
            f"has no category {_shorten(missing)}"
            if missing
            else "lists its categories in another order than the configured classes"
        )
        raise UserError(
            f"{path} {problem}. MMDetection leaves out missing classes and numbers the "
            f"others in the order of the file, so labels would mean other classes from "
            f"the first difference on. Set metainfo=dict(classes=...) to the file's "
            f"order: {_shorten(present)}"
        )


def _shorten(names: Sequence[str], limit: int = 10) -> str:
    """List at most ``limit`` names."""
    listed = ", ".join(map(str, names[:limit]))
    return listed if len(names) <= limit else f"{listed}, ... ({len(names)} in all)"
