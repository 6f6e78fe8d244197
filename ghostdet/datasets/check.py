"""A check of a data set before a run, where mistakes cost seconds, not hours."""

from __future__ import annotations

import json
import math
import os
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
_SAMPLE = 10  # images of which one has to be there


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
            wrapper that holds one as ``dataset`` or several as ``datasets``. A data
            set of another kind, also a subclass that reads files in its own way, is
            not checked.

    Raises:
        UserError: If the annotation file, the image directory or all of a sample of
            images are missing, the file is not JSON or not COCO, nothing in it bears
            one of the classes, its classes are fewer or in another order, or nothing
            is left to learn.
        ConfigError: If the data set cannot be built.

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
    from mmdet.datasets import CocoDataset

    kind = dataset_cfg.get("type")
    if kind is None:
        raise ConfigError(f"a data set has no type, only {_shorten(list(dataset_cfg))}")
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    # Subclasses that read a file of their own kind do as they like.
    if not isinstance(kind, type) or any(
        getattr(kind, method, None) is not getattr(CocoDataset, method)
        for method in ("load_data_list", "parse_data_info", "filter_data")
    ):
        return
    # Built without reading anything, for its resolved paths and class names.
    cfg = dataset_cfg.copy()
    cfg.update(pipeline=[], lazy_init=True)
    try:
        dataset = DATASETS.build(cfg)
    except TypeError as error:
        raise ConfigError(f"the data set cannot be built: {error}") from error
    classes = dataset.metainfo["classes"]
    if isinstance(classes, str):
        raise ConfigError(
            f"metainfo.classes is the word {classes!r}, expected a tuple or a file; "
            f"write classes=({classes!r},)"
        )
    _check_files(dataset, dataset_cfg)
    labelled = not dataset.test_mode and (dataset.filter_cfg or {}).get(
        "filter_empty_gt", False
    )
    coco = _load_coco(dataset, labelled)
    _check_values(dataset.ann_file, coco)
    _check_classes(dataset, coco)
    if labelled:
        _check_objects(dataset, coco)
    _check_images(dataset, dataset_cfg, coco)


def check_evaluation(ann_file: str, backend_args: dict | None = None) -> None:
    """Check that COCO's evaluation can run on an annotation file.

    Args:
        ann_file: ``ann_file`` of :class:`mmdet.evaluation.CocoMetric`.
        backend_args: Its ``backend_args``.

    Raises:
        UserError: If there is no such file, or an annotation has no ``iscrowd``.
    """
    if not _is_there("isfile", ann_file, backend_args):
        raise UserError(
            f"{ann_file}: no such annotation file, which the evaluator's ann_file "
            "names; give that of the data set"
        )
    coco = json.loads(fileio.get(ann_file, backend_args))
    for annotation in coco.get("annotations", []):
        if "iscrowd" not in annotation:
            raise UserError(
                f"{ann_file}: annotation {annotation['id']} has no iscrowd, without "
                "which COCO's evaluation stops. Write iscrowd=0 into each"
            )


def _is_there(kind: str, path: str, backend_args: dict | None) -> bool:
    """``isfile`` or ``isdir``, where the backend can tell."""
    backend = fileio.get_file_backend(path, backend_args=backend_args)
    return not hasattr(backend, kind) or getattr(backend, kind)(path)


def _check_files(dataset: Any, cfg: dict) -> None:
    """Check that the annotation file and the image directory exist."""
    images = dataset.data_prefix.get("img", "")
    expected = [cfg.get("ann_file", ""), cfg.get("data_prefix", {}).get("img", "")]
    remedy = (
        "Give the directory of the data set with --data-root DIR. It must hold\n"
        + "\n".join(f"  {fileio.join_path('DIR', path)}" for path in expected)
    )
    if not _is_there("isfile", dataset.ann_file, dataset.backend_args):
        raise UserError(f"{dataset.ann_file}: no such annotation file. {remedy}")
    if images and not _is_there("isdir", images, dataset.backend_args):
        raise UserError(f"{images}: no such image directory. {remedy}")


def _load_coco(dataset: Any, labelled: bool) -> dict:
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
    if not labelled:
        found.setdefault("annotations", [])
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


def _check_values(path: str, coco: dict) -> None:
    """Check identifiers, sizes and boxes, on which MMDetection or pycocotools stop."""
    for name in ("images", "annotations"):
        seen: dict = {}
        for entry in coco[name]:
            if seen.setdefault(str(entry["id"]), entry) != entry:
                raise UserError(
                    f"{path}: two of its {name} have the id {entry['id']}. Give each "
                    "its own"
                )
    for image in coco["images"]:
        if not all(_is_number(image[key]) for key in ("width", "height")):
            raise UserError(
                f"{path}: width and height of image {image['id']} are "
                f"{image['width']!r} and {image['height']!r}. Expected numbers of px"
            )
    categories = {category["id"] for category in coco["categories"]}
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
        if annotation["category_id"] not in categories:
            raise UserError(
                f"{path}: annotation {annotation['id']} has the category_id "
                f"{annotation['category_id']!r}, which is none of the categories'. "
                "MMDetection would leave it out"
            )


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def _check_images(dataset: Any, cfg: dict, coco: dict) -> None:
    """Check that not all of a sample of images are missing, as in another folder."""
    loading = next(iter(cfg.get("pipeline") or []), {})
    if loading.get("backend_args") != cfg.get("backend_args"):
        return  # they lie elsewhere
    sample = coco["images"][:: len(coco["images"]) // _SAMPLE + 1]
    paths = [
        os.path.join(dataset.data_prefix.get("img", ""), image["file_name"])
        for image in sample
    ]
    if not any(_is_there("isfile", path, dataset.backend_args) for path in paths):
        raise UserError(
            f"{dataset.ann_file}: none of {len(paths)} images it lists is there, such "
            f"as {paths[0]}. Set data_prefix=dict(img=...) to their folder"
        )


def _check_objects(dataset: Any, coco: dict) -> None:
    """Check that something is left to learn when images without objects are not."""
    path, classes = dataset.ann_file, dataset.metainfo["classes"]
    wanted = {c["id"] for c in coco["categories"] if c["name"] in classes}
    objects = [a for a in coco["annotations"] if a["category_id"] in wanted]
    shown = {
        a["image_id"]
        for a in objects
        if not a.get("iscrowd") and a["area"] > 0 and min(a["bbox"][2:]) >= 1
    }
    if not shown:
        raise UserError(
            f"{path}: none of its {len(coco['annotations'])} annotations is an object "
            f"of the classes {_shorten(classes)} ({len(objects)} crowds or boxes of "
            "less than 1 px). Give a file with annotated objects"
        )
    least = dataset.filter_cfg.get("min_size", 0)
    if not any(
        image["id"] in shown and min(image["width"], image["height"]) >= least
        for image in coco["images"]
    ):
        raise UserError(
            f"{path}: no image with objects is left, since filter_cfg leaves out those "
            f"whose smaller side is less than min_size={least} px. Lower it"
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
    names = [category["name"] for category in coco["categories"]]
    twice = sorted({name for name in present if names.count(name) > 1})
    if twice:
        raise UserError(
            f"{path}: more than one of its categories is called {_shorten(twice)}, and "
            "MMDetection would take them for different classes. Make them one"
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
