"""Load a dataset and compare what it kept with what its files hold."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine import fileio
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import is_image_file
from tqdm import tqdm

from ghostdet.checks.findings import Finding
from ghostdet.datasets.classification import ClassificationDataset, ImageFolder
from ghostdet.datasets.transforms.loading import LoadReadableImage
from ghostdet.errors import UserError
from ghostdet.utils.components import iter_datasets, type_name
from ghostdet.utils.text import shorten

# px by which boxes may reach over a border: some tools count pixels from 1.
_TOLERANCE = 1
# Share of boxes over the border at which they are taken to be corners.
_CORNERS = 0.2
_EXPECTED = (
    "Expected COCO annotations: images with id, file_name, width and height; "
    "annotations with id, image_id, category_id, bbox [x, y, width, height], area and "
    "iscrowd; categories with id and name"
)


def check_dataset(dataset_cfg: dict) -> None:
    """Check that a dataset can be loaded, and that its classes are the file's.

    MMDetection's own words for a wrong class name are "need at least one array to
    concatenate". Images are not opened: :class:`~ghostdet.datasets.LoadReadableImage`
    names a broken one when it is needed.

    Args:
        dataset_cfg: Configuration of a dataset, or of a wrapper that holds one as
            ``dataset`` or several as ``datasets``.

    Raises:
        UserError: If it cannot be loaded, if nothing is left of it, or if labels would
            mean other classes than the config's.

    Example:
        >>> cfg = dict(type='RepeatDataset', times=2, dataset=dict(
        ...     type='CocoDataset', data_root='nowhere', ann_file='train.json',
        ...     data_prefix=dict(img='train/')))
        >>> check_dataset(cfg)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ghostdet.errors.UserError: nowhere/train.json: no such annotation file. ...
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


@dataclass
class DatasetCheck:
    """A dataset, no wrapper, loaded by itself.

    Args:
        cfg: Its configuration.
        key: Its place in the config, for remedies.

    Attributes:
        dataset: The dataset; None if it cannot be loaded.
        failure: Why it cannot be loaded.
        contents: Checksum of the pixels of each image that was read, by path.
        objects: Number of objects to learn from, once it is known.
    """

    cfg: dict
    key: str = "dataset"
    dataset: Any = field(init=False, default=None)
    failure: Finding | None = field(init=False, default=None)
    contents: dict[str, bytes] = field(init=False, default_factory=dict)
    objects: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        # A file in COCO's format: its lists, and for each image that was parsed its
        # entry, its annotations and the dataset's sample.
        self._raw: dict[str, list] = {}
        self._parsed: list[tuple[dict, list[dict], dict]] = []
        self._infos: list[dict] = []  # of the images that are used
        try:
            self.dataset = self._load()
        except UserError as error:
            self.failure, self.dataset = Finding.of_error("dataset", error), None
        except Exception as error:  # datasets raise what they like
            self.failure, self.dataset = self._explain(error), None

    def _load(self) -> Any:
        kind = self.cfg.get("type")
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        cfg = copy.deepcopy(dict(self.cfg))
        if not (isinstance(kind, type) and issubclass(kind, BaseDataset)):
            return DATASETS.build(cfg)
        dataset = self.dataset = DATASETS.build({**cfg, "lazy_init": True})
        classes = dataset.metainfo.get("classes")
        if isinstance(classes, str):
            raise UserError(
                f"metainfo.classes is the word {classes!r}, expected a tuple or a "
                f"file; write classes=({classes!r},)"
            )
        own = {}

        from mmdet.datasets import CocoDataset  # needs MMCV's operators

        if getattr(kind, "parse_data_info", None) is CocoDataset.parse_data_info:
            own["parse_data_info"] = self._note(dataset.parse_data_info, self._parse)
            own["COCOAPI"] = self._note(dataset.COCOAPI, self._read)
        vars(dataset).update(own)
        dataset.full_init()
        for name in own:
            del vars(dataset)[name]
        keys = "img_path", "width", "height"
        infos = map(dataset.get_data_info, range(len(dataset)))
        infos = [{key: info[key] for key in keys if key in info} for info in infos]
        self._infos = [info for info in infos if info.get("img_path")]
        return dataset

    def _note(self, function: Callable, note: Callable) -> Callable:
        """Let a method of the dataset note what it is given and returns."""

        def noted(*args: Any) -> Any:
            result = function(*args)
            note(result, *args)
            return result

        return noted

    def _parse(self, info: dict, raw: dict) -> None:
        self._parsed.append((raw["raw_img_info"], raw["raw_ann_info"], info))

    def _read(self, coco: Any, path: str) -> None:
        self._raw = coco.dataset

    def _finding(self, check: str, status: str, text: str, remedy: str = "") -> Finding:
        return Finding(check, status, f"{self.source}: {text}", remedy)

    def _explain(self, error: Exception) -> Finding:
        """Say why a dataset cannot be loaded, with the entry at which it failed."""
        text = first_sentence(error)
        if "at least one array" in text and self._raw:
            failures = [f for f in self._annotations() if f.status == "fail"]
            return (failures or [self._useless()])[0]
        if not getattr(self.dataset, "ann_file", None):
            remedy = f"Correct it there, or with --cfg-options {self.key}.KEY=VALUE"
            text = f"{self.key} cannot be built: {text}"
            return Finding("dataset", "fail", text, remedy)
        remedy = _EXPECTED
        if isinstance(error, FileNotFoundError):
            prefixes = (self.cfg.get("data_prefix") or {}).values()
            names = list(filter(None, [self.cfg.get("ann_file"), *prefixes]))
            text = "no such annotation file"
            if str(error.filename) != self.dataset.ann_file:
                text = f"names {error.filename}, which does not exist"
            remedy = (
                "Give the directory of the dataset with --data-root DIR. It must hold\n"
                + "\n".join(f"  {fileio.join_path('DIR', n)}" for n in names)
            )
        elif isinstance(error, json.JSONDecodeError):
            text = f"not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        elif isinstance(error, UnicodeDecodeError):
            text = f"not JSON but binary data ({error.reason} at byte {error.start})"
        else:
            kind = type_name(self.cfg["type"])
            text = f"{kind} cannot load it: {text}{_entry(error)}"
        return self._finding("annotations", "fail", text, remedy)

    def _useless(self) -> Finding:
        images, annotations = (
            f"{len(self._raw.get(name, [])):,}" for name in ("images", "annotations")
        )
        return self._finding(
            "annotations",
            "fail",
            f"filter_cfg={self.cfg.get('filter_cfg')} leaves no image with objects of "
            f"the classes {shorten(self.classes)}, of {images} images with "
            f"{annotations} annotations",
            "Give a file with annotated objects that are no crowds, or change "
            f"{self.key}.filter_cfg",
        )

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes; empty if the dataset has none."""
        return getattr(self.dataset, "metainfo", {}).get("classes") or ()

    @property
    def source(self) -> str:
        """Name of the dataset in messages."""
        own = getattr(self.dataset, "source", None)
        return own or getattr(self.dataset, "ann_file", None) or self.key

    def __len__(self) -> int:
        """Return the number of images that are used."""
        return len(self.dataset)

    def paths(self) -> list[str]:
        """List the files of the images that are used, or their names in messages."""
        if isinstance(self.dataset, ClassificationDataset):
            return list(map(self.dataset.path, range(len(self))))
        return [str(info.get("img_path")) for info in self._infos]

    def elsewhere(self, part: str) -> str:
        """Name the options that give a part other images."""
        if isinstance(self.dataset, ClassificationDataset):
            folder = isinstance(self.dataset, ImageFolder)
            return f"{self.key}.{'root=DIR' if folder else 'train=False'}"
        return f"{self.key}.ann_file=FILE {part}_evaluator.ann_file=FILE"

    def findings(
        self, images: int | None = 0, workers: int = 0, hashed: bool = False
    ) -> Iterator[Finding]:
        """Check annotations, classes, boxes and images.

        Args:
            images: How many images to read, evenly spread; None for all.
            workers: Processes that read them, with a progress bar; 0 for this one.
            hashed: Fill ``contents``.

        Yields:
            What was found, of each check at least one finding.
        """
        if self.failure is not None:
            yield self.failure
            return
        if isinstance(self.dataset, ClassificationDataset):
            yield from self._folders()
        elif self._raw:
            yield from self._annotations()
            self._raw, self._parsed = {}, []  # gigabytes, of COCO
        else:
            text = f"{len(self):,} images, loaded by {type_name(self.cfg['type'])}"
            yield self._finding("annotations", "pass", text)
        yield from self._images(images, workers, hashed)

    def _folders(self) -> Iterator[Finding]:
        """Count the images of each class, and find those beside the folders."""
        dataset = self.dataset
        counts = np.bincount(dataset.targets, minlength=len(self.classes))
        each = " to ".join(f"{n:,}" for n in sorted({min(counts), max(counts)}))
        text = f"{len(counts):,}, of {each} images each: {shorten(self.classes)}"
        if len(counts) > 1:
            yield Finding("classes", "pass", text)
        else:
            text = f"one class, {self.classes[0]}: there is nothing to tell apart"
            remedy = "Add images of others, in a folder for each"
            yield self._finding("classes", "warn", text, remedy)
        if isinstance(dataset, ImageFolder):
            names = set(filter(is_image_file, os.listdir(dataset.root)))
            if strays := sorted(names.difference(self.classes)):
                text = f"{len(strays):,} image{'s' * (len(strays) > 1)} beside the "
                text += f"folders of classes, not used, such as {strays[0]}"
                remedy = "Move them into the folders of their classes, or away"
                yield self._finding("images", "warn", text, remedy)

    def _annotations(self) -> Iterator[Finding]:
        """Compare the images and objects of a file with those that were kept."""
        images, annotations = (self._raw.get(k, []) for k in ("images", "annotations"))
        names = {c["id"]: c["name"] for c in self._raw["categories"]}
        labels = self.dataset.cat2label
        found, learnable = [], 0
        boxes, dropped, unknown, infinite = [], [], [], []
        for image, own, info in self._parsed:
            left = iter(info["instances"])
            instance = next(left, None)
            learnable += sum(not i["ignore_flag"] for i in info["instances"])
            for annotation in own:
                if annotation.get("ignore"):
                    continue
                box, label = annotation["bbox"], labels.get(annotation["category_id"])
                if not _finite(box):
                    infinite.append(annotation)
                    continue
                x, y, w, h = box
                kept = instance and (instance["bbox"], instance["bbox_label"])
                if kept == ([x, y, x + w, y + h], label):
                    instance = next(left, None)
                    boxes.append((x, y, w, h, image["width"], image["height"]))
                elif label is not None:
                    dropped.append((annotation, image))
                elif annotation["category_id"] not in names:
                    unknown.append(annotation)

        def problem(status: str, text: str, remedy: str) -> None:
            found.append(self._finding("annotations", status, text, remedy))

        ids = Counter(image["id"] for image in images)
        ((twice, times),) = ids.most_common(1) or [(None, 0)]
        if times > 1:
            problem(
                "fail",
                f"{times} of its images have the id {twice!r}",
                "Give each its own",
            )
        if infinite:
            text = f"annotation {infinite[0]['id']} has the bbox "
            text += json.dumps(infinite[0]["bbox"])[:100]
            problem("fail", text, "Expected [x, y, width, height] in px")
        if unknown:
            problem(
                "fail",
                f"annotation {unknown[0]['id']} has the category_id "
                f"{unknown[0]['category_id']!r}, which is none of the categories' "
                f"({_of(len(unknown), annotations)})",
                "MMDetection leaves it out: add the category, or remove it",
            )
        orphans = [a["id"] for a in annotations if a["image_id"] not in ids]
        if orphans:
            problem(
                "warn",
                f"{_of(len(orphans), annotations)} annotations are of no image in the "
                f"file, such as annotation {orphans[0]}",
                "They are left out; add the images, or remove the annotations",
            )
        if not found:
            empty = sum(not own for _, own, _ in self._parsed)
            without = f" ({empty:,} without objects)" if empty else ""
            text = f"{len(images):,} images{without}, {len(annotations):,} objects"
            problem("pass", text, "")
        yield from found
        yield from (classes := list(self._classes(names)))
        if dropped:
            annotation, image = dropped[0]
            box, size = annotation["bbox"], f"{image['width']}x{image['height']}"
            yield self._finding(
                "boxes",
                "warn",
                f"{_of(len(dropped), annotations)} objects are left out, such as "
                f"annotation {annotation['id']}, bbox {box} and area "
                f"{annotation.get('area')} in {size} px: less than 1 px wide or high, "
                "without area, or outside the image",
                "Correct them: [x, y, width, height] in px, not in shares of the image",
            )
        yield from self._borders(np.array(boxes, float).reshape(-1, 6), bool(dropped))
        self.objects = learnable
        needed = (self.cfg.get("filter_cfg") or {}).get("filter_empty_gt")
        sound = all(finding.status != "fail" for finding in (*found, *classes))
        if sound and needed and not learnable and not self.cfg.get("test_mode"):
            yield self._useless()

    def _classes(self, names: dict[Any, str]) -> Iterator[Finding]:
        """Check that each label means the class of that number in the config."""
        classes = list(self.classes)
        learnt = [names[category] for category in self.dataset.cat2label]
        missing = [name for name in classes if name not in learnt]
        others = [name for name in names.values() if name not in classes]
        twice = [name for name, count in Counter(learnt).items() if count > 1]
        if learnt == classes and not others:
            text = f"{len(classes)}, as in the file: {shorten(classes)}"
            yield Finding("classes", "pass", text)
            return
        if learnt == classes:
            text = f"categories that are none of the {len(classes)} classes become "
            text += f"background: {shorten(others)}"
            remedy = (
                "To detect them as well, add them to metainfo=dict(classes=...) in "
            )
            remedy += "the file's order"
            yield self._finding("classes", "warn", text, remedy)
            return
        if not learnt:
            problem = "none of the configured classes is in the file.\n  configured: "
            problem += (
                f"{shorten(classes)}\n  in the file: {shorten([*names.values()])}"
            )
            remedy = "Set metainfo=dict(classes=(...)) to names from the file, and "
            remedy += "num_classes of the head to their number"
        elif twice:
            problem = f"more than one of its categories is called {shorten(twice)}"
            remedy = "Make them one"
        elif missing:
            problem = f"has no category {shorten(missing)}, only {shorten(learnt)}"
            place = len(learnt) - 1
            if learnt[place] != classes[place]:
                problem += f", so that {learnt[place]} is taken for {classes[place]}"
            remedy = "Add the category to the file, also where it has no objects; or, "
            remedy += "in all datasets, leave it out of metainfo=dict(classes=...) and "
            remedy += "of num_classes"
        else:
            problem = "lists its categories in another order than the configured "
            problem += "classes, and labels follow the file"
            remedy = "List the file's categories in the order of the classes, or set "
            remedy += "metainfo=dict(classes=...) to the file's order: "
            remedy += shorten(learnt)
        yield self._finding("classes", "fail", problem, remedy)

    def _borders(self, rows: np.ndarray, dropped: bool) -> Iterator[Finding]:
        """Check that boxes, ``(N, 6)`` with the size of their image, are inside it."""
        boxes, sizes = rows[:, :4], rows[:, 4:]
        over = np.maximum(-boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - sizes)
        outside = over.max(1, initial=-np.inf) > _TOLERANCE
        corners = (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= sizes + _TOLERANCE)
        if not outside.any():
            if not dropped:
                text = f"{len(boxes):,}, all inside their images, none empty"
                yield Finding("boxes", "pass", text)
            return
        text = f"{_of(outside.sum(), boxes)} boxes reach over the border of their image"
        if corners.all() and outside.mean() > _CORNERS:
            text += ", and all would be inside as [x1, y1, x2, y2]"
            remedy = "COCO's are [x, y, width, height]: subtract x1 and y1 from x2 and "
            remedy += "y2, and write width * height as area"
            yield self._finding("boxes", "fail", text, remedy)
            return
        *box, width, height = (f"{value:g}" for value in rows[outside][0])
        text += f" by more than {_TOLERANCE} px, such as [{', '.join(box)}] in "
        remedy = "Correct them, or width and height of their images: the part outside "
        remedy += "is learnt and evaluated with the object"
        yield self._finding("boxes", "warn", f"{text}{width}x{height}", remedy)

    def _images(
        self, count: int | None, workers: int, hashed: bool
    ) -> Iterator[Finding]:
        """Check that images exist, can be read, and have the size in the file."""
        paths, images = self.paths(), _Images(self, hashed)
        missing = _missing(paths) if images.local else []
        if len(missing) == len(paths) > 0:
            text = f"none of {len(paths)} images it lists is there, such as {paths[0]}"
            remedy = "Set data_prefix=dict(img=...) to their folder; file_name is "
            remedy += "relative to it, with forward slashes"
            yield self._finding("images", "fail", text, remedy)
            return
        if missing:
            text = (
                f"{_of(len(missing), paths)} images are missing, such as {missing[0]}"
            )
            yield self._unreadable(text, len(missing))
        absent = set(missing)
        there = [i for i, path in enumerate(paths) if path not in absent]
        if images.bare is None and images.load is None:
            there = []  # the pipeline has a loader of its own
        if count is not None and count < len(there):
            chosen = np.linspace(0, len(there) - 1, count).astype(int)
            there = [there[i] for i in chosen]
        broken, other = [], []
        for index, why, size, content in images.read(there, workers):
            path, info = paths[index], self._infos[index] if self._infos else {}
            stated = info.get("width", size[0]), info.get("height", size[1])
            if why:
                broken.append(why if path in why else f"{path} ({why})")
            elif stated != size:
                other.append((path, *size, *stated))
            elif hashed:
                self.contents[path] = content
        if broken:
            text = (
                f"{_of(len(broken), there)} images that were read are broken, such as "
            )
            yield self._unreadable(text + broken[0], len(broken))
        if other:
            path, *sides = other[0]
            text = f"{_of(len(other), there)} images that were read have another size "
            text += "than the file says, such as {}: {}x{} px, not {}x{}".format(
                path, *sides
            )
            remedy = "Put back the images that were annotated, or correct width and "
            remedy += "height and, if they were scaled or turned, the boxes"
            yield self._finding("images", "fail", text, remedy)
        repeated = [name for name, times in Counter(paths).items() if times > 1]
        if repeated:
            text = f"{len(repeated):,} files are listed as several images, such as "
            remedy = "Join their annotations under one image, or correct file_name"
            yield self._finding("images", "warn", text + repeated[0], remedy)
        elif not (missing or broken or other):
            looked = (
                "read" if len(there) == len(paths) else f"{len(there):,} of them read"
            )
            text = f"{len(paths):,}, {looked if there else 'not opened'}"
            yield self._finding("images", "pass", text)

    def _unreadable(self, text: str, count: int) -> Finding:
        """Report images, as a warning if the pipeline passes over as many."""
        remedy, allowed = "Restore them, or remove them from the dataset", 0
        for position, step in enumerate(self.cfg.get("pipeline") or []):
            if "max_unreadable" in step:
                allowed = step["max_unreadable"]
                place = f"{self.key}.pipeline.{position}"
                if count > allowed:
                    remedy += "; to train without them: --cfg-options "
                    remedy += f"{place}.max_unreadable={count}"
        if 0 < count <= allowed:
            text += f"; up to {allowed} are passed over"
        status = "fail" if count > allowed else "warn"
        return self._finding("images", status, text, remedy)


class _Images(Dataset):
    """The images of a dataset, without its transforms."""

    def __init__(self, check: DatasetCheck, hashed: bool) -> None:
        self.paths, self.hashed, self.bare = check.paths(), hashed, None
        if isinstance(check.dataset, ClassificationDataset):
            self.bare = DATASETS.build({**check.cfg, "pipeline": []})
        steps = getattr(getattr(check.dataset, "pipeline", None), "transforms", [])
        loads = [step for step in steps if isinstance(step, LoadReadableImage)]
        self.load = loads[0] if loads else None
        self.local = False  # whether files are looked for, and not asked of a server
        if self.load is not None and self.paths:
            backend_args = self.load.backend_args
            backend = fileio.get_file_backend(self.paths[0], backend_args=backend_args)
            self.local = isinstance(backend, fileio.LocalBackend)

    def read(self, chosen: list[int], workers: int) -> Iterator[tuple]:
        """Yield of each image its index, what is wrong with it, its size and hash."""
        self.chosen = chosen
        batch_size = max(1, min(64, len(chosen) // (4 * (workers or 1))))
        loader = DataLoader(self, batch_size, num_workers=workers, collate_fn=list)
        hidden = None if workers else True  # None: where no one looks
        with tqdm(total=len(chosen), unit="image", disable=hidden) as bar:
            for batch in loader:
                yield from batch
                bar.update(len(batch))

    def __getitem__(self, i: int) -> tuple[int, str, tuple[int, int], bytes]:
        index = self.chosen[i]
        try:
            if self.bare is None:
                image = self.load.read(self.paths[index])
            else:
                image = np.asarray(self.bare[index]["inputs"])
        except (OSError, UserError) as error:
            return index, getattr(error, "text", str(error)), (0, 0), b""
        pixels = np.ascontiguousarray(image) if self.hashed else b""
        content = hashlib.blake2b(pixels, digest_size=16).digest()
        return index, "", image.shape[1::-1], content

    def __len__(self) -> int:
        return len(self.chosen)


def _finite(box: list) -> bool:
    try:
        return all(map(math.isfinite, box))
    except OverflowError:
        return False


def _missing(paths: list[str]) -> list[str]:
    """List those that are not on the disk; each folder is listed once."""
    folders: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            present = os.path.isdir(folder or ".")
            folders[folder] = set(os.listdir(folder or ".")) if present else set()
        if name not in folders[folder]:
            missing.append(path)
    return missing


def _entry(error: BaseException) -> str:
    """Give the entry of a file at which a loader failed, from its variables."""
    entry = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for name in ("data_info", "img_info", "img", "cat", "ann"):
            entry = frame.f_locals.get(name, entry)
    shown = json.dumps(entry, default=repr)
    return f", in {shown[:150]}" if isinstance(entry, dict) else ""


def first_sentence(error: BaseException) -> str:
    """Name an error, without the advice that registries add."""
    text = str(error.args[0]) if error.args else type(error).__name__
    text = str(error) if isinstance(error, OSError) else text
    unknown = re.match(r"\S+ is not in the .+? registry", text)
    text = unknown.group() if unknown else text[:300]
    if isinstance(error, KeyError) and not unknown:
        text = f"no key {text!r}"
    return text


def _of(count: int, whole: Sequence) -> str:
    return f"{count:,} of {len(whole):,}"
