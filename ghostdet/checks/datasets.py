"""Load a dataset and compare it with its files."""

from __future__ import annotations

import copy
import functools
import json
import os
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope
from torchvision.datasets.folder import is_image_file

from ghostdet.checks.classes import compare_classes
from ghostdet.checks.findings import Finding
from ghostdet.checks.images import read_images
from ghostdet.config import reason
from ghostdet.datasets.classification import ClassificationDataset, ImageFolder
from ghostdet.errors import UserError
from ghostdet.utils.components import build_dataset, iter_datasets, type_name
from ghostdet.utils.files import list_folder
from ghostdet.utils.text import share, shorten

_TOLERANCE = 1  # px over a border: some tools count pixels from 1
_SHARE = 0.2  # with more boxes over the border, they have another form
_FARTHEST = 1e9  # px
_EXPECTED = (
    "Expected COCO annotations: images with id, file_name, width and height; "
    "annotations with id, image_id, category_id, bbox [x, y, width, height], area and "
    "iscrowd; categories with id and name"
)
KEPT = (
    "MMDetection drops an object if its category_id or image_id is not in the file, if "
    "its bbox [x, y, width, height] is under 1 px, has no area or lies outside the "
    "image, or if it has ignore=1 (COCO still counts that one); it ignores crowds "
    "(iscrowd=1) and, with masks, objects without one"
)


def check_dataset(dataset_cfg: dict) -> None:
    """Check that a dataset loads and has the file's classes, without its images.

    Args:
        dataset_cfg: Configuration of a dataset, or of a wrapper of datasets.

    Raises:
        UserError: If it cannot be loaded, if nothing is left of it, or if labels would
            mean other classes than the config's.
    """
    scope = DefaultScope.get_current_instance()
    with (
        DefaultScope.overwrite_default_scope(scope.scope_name if scope else "mmdet"),
        redirect_stdout(StringIO()),
    ):
        for key, cfg in iter_datasets(dataset_cfg):
            for finding in DatasetCheck(cfg, key).findings():
                if finding.status == "fail":
                    raise finding.error()


class DatasetCheck:
    """A dataset without its wrappers, and what its files hold.

    Args:
        cfg: Its configuration.
        key: Its place in the config, for remedies.

    Attributes:
        dataset: The dataset, None if it cannot be loaded.
        objects: Number of objects to learn from, None if it is not known.
    """

    def __init__(self, cfg: dict, key: str = "dataset") -> None:
        self.cfg, self.key = cfg, key
        self.dataset = self.failure = self.objects = None
        self._contents: dict[Any, str] = {}  # images by the checksum of their pixels
        # A COCO file's lists, and the entry, labels and sample of each image.
        self._raw: dict[str, list] = {}
        self._parsed: list[tuple[dict, list[dict], dict]] = []
        self._infos: list[dict] = []  # the images that are used
        try:
            self.dataset = self._load()
        except Exception as error:  # datasets raise what they like
            self.failure, self.dataset = self._explain(error), None

    def _load(self) -> Any:
        kind = self.cfg.get("type")
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        cfg = copy.deepcopy(dict(self.cfg))
        if not (isinstance(kind, type) and issubclass(kind, BaseDataset)):
            return DATASETS.build(cfg)
        dataset = self.dataset = build_dataset(cfg)
        from mmdet.datasets import CocoDataset  # needs MMCV's operators

        parse_data_info, api = dataset.parse_data_info, getattr(dataset, "COCOAPI", 0)
        masks = [t for t in dataset.pipeline.transforms if getattr(t, "with_mask", 0)]

        def parse(raw: dict) -> dict:
            info = parse_data_info(raw)
            for step in masks:  # which ignores objects without points
                step._process_masks(info)
            self._parsed.append((raw["raw_img_info"], raw["raw_ann_info"], info))
            return info

        def read(path: str) -> Any:
            coco = api(path)
            self._raw = coco.dataset
            return coco

        if getattr(kind, "parse_data_info", None) is CocoDataset.parse_data_info:
            vars(dataset).update(parse_data_info=parse, COCOAPI=read)
        dataset.full_init()
        for name in ("parse_data_info", "COCOAPI"):
            vars(dataset).pop(name, None)
        keys = "img_path", "width", "height"
        infos = map(dataset.get_data_info, range(len(dataset)))
        infos = [{key: info[key] for key in keys if key in info} for info in infos]
        self._infos = [info for info in infos if info.get("img_path")]
        return dataset

    def _finding(self, check: str, status: str, text: str, remedy: str = "") -> Finding:
        return Finding(check, status, f"{self.source}: {text}", remedy)

    def _explain(self, error: Exception) -> Finding:
        """Say why a dataset cannot be loaded, with the entry at which it failed."""
        text, path = reason(error), getattr(self.dataset, "ann_file", None)
        if isinstance(error, UserError):
            return Finding.of_error("dataset", error)
        if "at least one array" in text and self._raw:
            found = [f for f in self._annotations() if f.status == "fail"]
            return (found or [self._nothing()])[0]
        if not path:
            remedy = f"Correct it there, or with --cfg-options {self.key}.KEY=VALUE"
            text = f"{self.key} cannot be built: {text}"
            return Finding("dataset", "fail", text, remedy)
        remedy = _EXPECTED
        if isinstance(error, FileNotFoundError):
            folder, suffix = os.path.dirname(path), os.path.splitext(path)[1]
            others = sorted(n for n in list_folder(folder) if n.endswith(suffix))
            text = "no such annotation file"
            if str(error.filename) != path:
                text = f"names {error.filename}, which does not exist"
            text += f"; its folder has {shorten(others)}" * bool(others)
            remedy = "Give the dataset's directory with --data-root DIR"
        elif isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
            empty = getattr(error, "doc", None) == ""
            text = "the file is empty" if empty else f"not JSON: {error}"
        else:
            text = (
                f"{type_name(self.cfg['type'])} cannot load it: {text}{_entry(error)}"
            )
        return self._finding("annotations", "fail", text, remedy)

    def _nothing(self) -> Finding:
        images, objects = (self._raw.get(key, ()) for key in ("images", "annotations"))
        text = f"no image with objects of {shorten(self.classes)} is left after "
        text += f"filter_cfg={self.cfg.get('filter_cfg')}; the file has "
        text += f"{len(images):,} images and {len(objects):,} annotations"
        text += f", such as {_shown(objects[0])}" if objects else ""
        return self._finding("annotations", "fail", text, KEPT)

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes; empty if the dataset has none."""
        return getattr(self.dataset, "metainfo", {}).get("classes") or ()

    @property
    def source(self) -> str:
        """Name of the dataset in messages."""
        own = getattr(self.dataset, "source", None)
        return own or getattr(self.dataset, "ann_file", None) or self.key

    @functools.cached_property
    def paths(self) -> list[str]:
        """Files of the images that are used, or their names in messages."""
        if isinstance(self.dataset, ClassificationDataset):
            return list(map(self.dataset.path, range(len(self.dataset))))
        return [str(info.get("img_path")) for info in self._infos]

    def identities(self) -> dict[Any, str]:
        """Map real paths and checksums of images to their names in messages."""
        folder, found = functools.cache(os.path.realpath), self._contents.copy()
        for path in self.paths:
            real = os.path.join(folder(os.path.dirname(path)), os.path.basename(path))
            found[os.path.realpath(real) if os.path.islink(real) else real] = path
        return found

    def findings(self, images: int | None = 0, workers: int = 1) -> Iterator[Finding]:
        """Check annotations, classes, boxes and images.

        Args:
            images: Number of images to read, evenly spread; None for all.
            workers: Number of threads that read them.
        """
        if self.failure is not None:
            yield self.failure
            return
        if isinstance(self.dataset, ClassificationDataset):
            yield from self._folders()
        elif self._raw:
            yield from self._annotations()
            self._raw, self._parsed = {}, []  # gigabytes, for COCO
        else:
            text = f"{len(self.dataset):,} images, by {type_name(self.cfg['type'])}"
            yield self._finding("annotations", "pass", text)
        yield from self._images(images, workers)

    def _folders(self) -> Iterator[Finding]:
        """Count the images of each class, and find those beside the folders."""
        dataset = self.dataset
        counts = np.bincount(dataset.targets, minlength=len(self.classes))
        each = " to ".join(f"{n:,}" for n in sorted({min(counts), max(counts)}))
        text = f"{len(counts):,}, of {each} images each: {shorten(self.classes)}"
        if len(counts) == 1:
            text = f"one class, {self.classes[0]}: there is nothing to learn"
            remedy = "Add images of others, in a folder for each"
            yield self._finding("classes", "warn", text, remedy)
        else:
            yield Finding("classes", "pass", text)
        if isinstance(dataset, ImageFolder):
            names = set(filter(is_image_file, os.listdir(dataset.root)))
            if strays := sorted(names.difference(self.classes)):
                text = f"not used, since they are in no class's folder: {len(strays):,}"
                remedy = "Move them into the folders of their classes, or away"
                text += f" images, such as {strays[0]}"
                yield self._finding("images", "warn", text, remedy)

    def _annotations(self) -> Iterator[Finding]:
        """Compare the images and objects of a file with those that were kept."""
        images, annotations = (self._raw.get(k, []) for k in ("images", "annotations"))
        names = {c["id"]: c["name"] for c in self._raw["categories"]}
        ids = Counter(image["id"] for image in images)
        out = [a for a in annotations if a["image_id"] not in ids]
        files = Counter(info["img_path"] for _, _, info in self._parsed)
        boxes, infinite, ignored, learnable, twice = [], [], 0, Counter(), 0
        for image, own, info in self._parsed:
            kept = [i for i in info["instances"] if not i["ignore_flag"]]
            learnable.update(i["bbox_label"] for i in kept)
            ignored += len(info["instances"]) - len(kept)
            twice += len(own) - len({(a["category_id"], *a["bbox"]) for a in own})
            left = iter(info["instances"])
            instance = next(left, None)
            for annotation in own:
                x, y, w, h = annotation["bbox"]
                label = self.dataset.cat2label.get(annotation["category_id"])
                box = dict(bbox=[x, y, x + w, y + h], bbox_label=label)
                if instance and box.items() <= instance.items():
                    crowd = annotation.get("iscrowd") == 1
                    out += [annotation] if instance["ignore_flag"] and not crowd else []
                    instance = next(left, None)
                    numbers = x, y, w, h, annotation["area"]
                    if all(abs(value) < _FARTHEST for value in numbers):
                        boxes.append((x, y, w, h, image["width"], image["height"]))
                    else:
                        infinite.append(annotation)
                elif label is not None or annotation["category_id"] not in names:
                    test = self.cfg.get("test_mode")
                    out += [annotation] if annotation.get("ignore") != 1 or test else []
        found = []
        categories = Counter(category["id"] for category in self._raw["categories"])
        for name, counts in dict(images=ids, categories=categories).items():
            if repeated := [f"{i!r}" for i, times in counts.items() if times > 1]:
                text = f"several {name} have the id {shorten(repeated)}"
                found.append(("fail", text, "Give each its own"))
        if repeated := [path for path, times in files.items() if times > 1]:
            text = f"{len(repeated):,} files are listed as several images, such as "
            found.append(("warn", text + repeated[0], "Give each one entry"))
        if infinite:
            text = f"bbox or area is not a usable number in {_shown(infinite[0])}"
            found.append(("fail", text, "Expected [x, y, width, height]"))
        if out:
            text = f"left out: {share(out, annotations)} annotations, such as "
            found.append(("warn", text + _shown(out[0]), KEPT))
        if not found:
            empty = sum(not own for _, own, _ in self._parsed)
            text = f"{len(annotations):,} objects in {len(images):,} images"
            text += f", {empty:,} of them empty" * bool(empty)
            text += f"; {ignored:,} ignored, as crowds" * bool(ignored)
            text += f"; {twice:,} are duplicates, with equal boxes" * bool(twice)
            found.append(("pass", text))
        found = [self._finding("annotations", *row) for row in found]
        learnt = [names[category] for category in self.dataset.cat2label]
        own = self.source, list(self.classes), list(names.values()), learnt, learnable
        found.append(compare_classes(*own))
        self.objects = sum(learnable.values())
        filtered = self.cfg.get("filter_cfg") and not self.cfg.get("test_mode")
        if filtered and not self.objects:
            found.append(self._nothing())
        yield from found
        if boxes:
            yield self._borders(np.array(boxes, float))

    def _borders(self, rows: np.ndarray) -> Finding:
        """Check that boxes, ``(N, 6)`` with the size of their image, are inside it."""
        x, y, w, h, width, height = rows.T

        def fit(x1: Any, y1: Any, x2: Any, y2: Any, *size: Any) -> np.ndarray:
            far = np.maximum(x2 - size[0], y2 - size[1]) <= _TOLERANCE
            return far & (np.minimum(x1, y1) >= -_TOLERANCE) & (x1 < x2) & (y1 < y2)

        inside = fit(x, y, x + w, y + h, width, height)
        if inside.all():
            return Finding("boxes", "pass", f"{len(rows):,}, inside their images")
        center = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        forms = {
            "bbox is [x1, y1, x2, y2]": fit(x, y, w, h, width, height),
            "bbox is [center x, center y, width, height]": fit(*center, width, height),
            "the images' height is width": fit(x, y, x + w, y + h, height, width),
        }
        *box, wide, high = rows[~inside][0].tolist()
        text = f"{share(x[~inside], x)} boxes reach more than {_TOLERANCE} px over the "
        text += f"border of their image, such as {box} in {wide:g}x{high:g}"
        remedy = "Correct bbox, [x, y, width, height] in px, or the images' size"
        if form := next((form for form, fits in forms.items() if fits.all()), None):
            text += f"; all would be inside if {form}"
        other = form and 1 - inside.mean() > _SHARE
        return self._finding("boxes", "fail" if other else "warn", text, remedy)

    def _images(self, count: int | None, workers: int) -> Iterator[Finding]:
        """Check that images exist, can be read, and have the size in the file."""
        paths, cfg = self.paths, self.cfg
        seen = read_images(self.dataset, cfg, paths, self._infos, count, workers)
        load, number, broken, other, self._contents = seen
        allowed, dark = getattr(load, "max_unreadable", 0), getattr(load, "dark", "")
        if broken:
            text = f"{share(broken, paths)} images cannot be read, such as {broken[0]}"
            status = "fail" if len(broken) > allowed else "warn"
            remedy = "Restore them, or remove them from the dataset"
            prefix = (cfg.get("data_prefix") or {}).get("img") or ""
            if len(broken) == len(paths):
                status, remedy = "fail", "Set data_prefix=dict(img=...) to their folder"
                if "\\" in paths[0] or prefix not in paths[0]:
                    remedy = "Correct file_name: relative to data_prefix, with slashes"
            elif status == "fail" and load and not cfg.get("test_mode"):
                step = self.dataset.pipeline.transforms.index(load)
                remedy += f", or skip them: --cfg-options {self.key}.pipeline.{step}."
                remedy += f"max_unreadable={len(broken)}"
            yield self._finding("images", status, text, remedy)
        if other:
            text = f"{len(other):,} of {number:,} images that were read have another "
            text += f"size than the file says, such as {other[0]}"
            remedy = "Put back the images that were annotated, or correct width and "
            remedy += "height and, if they were scaled or turned, the boxes"
            yield self._finding("images", "fail", text, remedy)
        if dark:
            yield self._finding("images", "warn", dark)
        if not (broken or other or dark):
            looked = "read" if number == len(paths) else f"{number:,} read"
            text = f"{len(paths):,} images, {looked if number else 'not opened'}"
            yield self._finding("images", "pass", text)


def _entry(error: BaseException) -> str:
    """Find the entry at which a loader failed, among its variables."""
    entry, tb = None, error.__traceback__
    for (frame, _), place in zip(traceback.walk_tb(tb), traceback.extract_tb(tb)):
        for name in ("data_info", "img_info", "img", "cat", "instance", "ann"):
            # createIndex still has the variables of its earlier loops.
            if place.name != "createIndex" or name in place.line:
                entry = frame.f_locals.get(name) or entry
    return f", in {_shown(entry)}" if isinstance(entry, dict) else ""


def _shown(entry: dict) -> str:
    """Show an entry of a file, without its polygons."""
    kept = {key: entry[key] for key in entry if key != "segmentation"}
    return json.dumps(kept, default=repr)[:200]
