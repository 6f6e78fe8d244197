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
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
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
        unreadable: Images that were found to be missing or broken.
        contents: Checksum of the pixels of each image that was read, by path.
    """

    cfg: dict
    key: str = "dataset"
    dataset: Any = field(init=False, default=None)
    failure: Finding | None = field(init=False, default=None)
    unreadable: set[str] = field(init=False, default_factory=set)
    contents: dict[str, bytes] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        # Of a file in COCO's format: its lists, and of each image that was parsed the
        # entry, its annotations and what the dataset makes of them.
        self._raw: dict[str, list] = {}
        self._parsed: list[tuple[dict, list[dict], dict]] = []
        self._infos: list[dict] = []  # of the images that are used
        try:
            self.dataset = self._load()
        except UserError as error:
            self.failure = Finding.of_error("dataset", error)
        except Exception as error:  # datasets raise what they like
            self.failure = self._explain(error)

    def _load(self) -> Any:
        kind, cfg = self.cfg.get("type"), copy.deepcopy(dict(self.cfg))
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        if not (isinstance(kind, type) and issubclass(kind, BaseDataset)):
            return DATASETS.build(cfg)
        dataset = self.dataset = DATASETS.build({**cfg, "lazy_init": True})
        classes = dataset.metainfo.get("classes")
        if isinstance(classes, str):
            raise UserError(
                f"metainfo.classes is the word {classes!r}, expected a tuple or a "
                f"file; write classes=({classes!r},)"
            )
        parse, select = dataset.parse_data_info, dataset.filter_data

        def parsed(raw: Any) -> Any:
            info = parse(raw)
            self._parsed.append((raw["raw_img_info"], raw["raw_ann_info"], info))
            return info

        def selected() -> list[dict]:
            self._infos = select()
            return self._infos

        from mmdet.datasets import CocoDataset  # needs MMCV's operators

        if getattr(kind, "parse_data_info", None) is CocoDataset.parse_data_info:
            dataset.parse_data_info = parsed
            dataset.COCOAPI = partial(self._kept, dataset.COCOAPI)
        dataset.filter_data = selected
        try:
            dataset.full_init()
        finally:
            for name in ("parse_data_info", "COCOAPI", "filter_data"):
                vars(dataset).pop(name, None)
        if len(self._infos) != len(dataset):
            self._infos = list(map(dataset.get_data_info, range(len(dataset))))
        return dataset

    def _kept(self, api: type, path: str) -> Any:
        """Load a file in COCO's format, and keep its lists."""
        coco = api(path)
        self._raw = coco.dataset
        return coco

    def _explain(self, error: Exception) -> Finding:
        """Say why a dataset cannot be loaded, with the entry at which it failed."""
        path = getattr(self.dataset, "ann_file", None)
        if "at least one array" in str(error) and self._raw:
            finding, self.dataset = self._nothing_left(), None
            return finding
        self.dataset, text = None, first_sentence(error)
        if path is None:
            return Finding(
                "dataset",
                "fail",
                f"{self.key} cannot be built: {text}",
                f"Correct it in the config, or with --cfg-options {self.key}.KEY=VALUE",
            )
        remedy = _EXPECTED
        if isinstance(error, FileNotFoundError):
            names = [self.cfg.get("ann_file"), *dict(self.cfg["data_prefix"]).values()]
            text = "no such annotation file"
            remedy = (
                "Give the directory of the dataset with --data-root DIR. It must hold\n"
                + "\n".join(f"  {fileio.join_path('DIR', n)}" for n in names if n)
            )
        elif isinstance(error, json.JSONDecodeError):
            text = f"not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        elif isinstance(error, UnicodeDecodeError):
            text = f"not JSON but binary data ({error.reason} at byte {error.start})"
        else:
            kind = type_name(self.cfg["type"])
            text = f"{kind} cannot load it: {text}{_entry(error)}"
        return Finding("annotations", "fail", f"{path}: {text}", remedy)

    def _nothing_left(self) -> Finding:
        """Say that no image is left, by the first reason that there is."""
        failures = [f for f in self._annotations() if f.status == "fail"]
        return (failures or [self._useless()])[0]

    def _useless(self) -> Finding:
        return Finding(
            "annotations",
            "fail",
            f"{self.source}: filter_cfg={self.cfg.get('filter_cfg')} leaves no image "
            f"with objects of the classes {shorten(self.classes)}, of "
            f"{len(self._raw.get('images', [])):,} images with "
            f"{len(self._raw.get('annotations', [])):,} annotations",
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
            kind = type_name(self.cfg["type"])
            text = f"{self.source}: {len(self):,} images, loaded by {kind}"
            yield Finding("annotations", "pass", text)
        yield from self._images(images, workers, hashed)

    def _folders(self) -> Iterator[Finding]:
        """Count the images of each class, and find those beside the folders."""
        dataset = self.dataset
        counts = np.bincount(dataset.targets, minlength=len(self.classes))
        each = " to ".join(f"{n:,}" for n in sorted({min(counts), max(counts)}))
        if len(counts) > 1:
            text = f"{len(counts):,}, of {each} images each: {shorten(self.classes)}"
            yield Finding("classes", "pass", text)
        else:
            yield Finding(
                "classes",
                "warn",
                f"{self.source}: one class, {self.classes[0]}: there is nothing to "
                "tell apart",
                "Add images of others, in a folder for each",
            )
        root = getattr(dataset, "root", None)
        if isinstance(dataset, ImageFolder):
            names = set(filter(is_image_file, os.listdir(root)))
            if strays := sorted(names.difference(self.classes)):
                yield Finding(
                    "images",
                    "warn",
                    f"{root}: {len(strays):,} image{'s' * (len(strays) > 1)} beside "
                    f"the folders of classes, not used, as {strays[0]}",
                    "Move them into the folders of their classes, or away",
                )

    def _annotations(self) -> Iterator[Finding]:
        """Compare the images and objects of a file with those that were kept."""
        path, found, raw = self.source, [], self._raw
        names = {category["id"]: category["name"] for category in raw["categories"]}

        def problem(status: str, text: str, remedy: str, check="annotations") -> None:
            found.append(Finding(check, status, f"{path}: {text}", remedy))

        images, annotations = raw.get("images", []), raw.get("annotations", [])
        if len(images) > len(self._parsed):
            (twice, times), *_ = Counter(i["id"] for i in images).most_common(1)
            problem(
                "fail",
                f"{times} of its images have the id {twice!r}, and of "
                f"{_of(len(self._parsed), images)} is anything kept",
                "Give each its own",
            )
        labels = getattr(self.dataset, "cat2label", {})
        boxes, dropped, unknown, infinite = [], [], [], []
        learnable = 0
        for image, own, info in self._parsed:
            left = iter(info["instances"])
            instance = next(left, None)
            learnable += sum(not i["ignore_flag"] for i in info["instances"])
            for annotation in own:
                box, label = annotation["bbox"], labels.get(annotation["category_id"])
                if not _finite(box):
                    infinite.append(annotation)
                    continue
                x, y, w, h = box
                if instance and (instance["bbox"], instance["bbox_label"]) == (
                    [x, y, x + w, y + h],
                    label,
                ):
                    instance = next(left, None)
                    boxes.append((x, y, w, h, image["width"], image["height"]))
                elif label is not None:
                    dropped.append((annotation, image))
                elif annotation["category_id"] not in names:
                    unknown.append(annotation)
        if infinite:
            first = json.dumps(infinite[0]["bbox"])[:100]
            problem(
                "fail",
                f"annotation {infinite[0]['id']} has the bbox {first}",
                "Expected [x, y, width, height] in px",
            )
        if unknown:
            problem(
                "fail",
                f"annotation {unknown[0]['id']} has the category_id "
                f"{unknown[0]['category_id']!r}, which is none of the categories' "
                f"({_of(len(unknown), annotations)})",
                "MMDetection leaves it out: add the category, or remove it",
            )
        belonging = sum(len(own) for _, own, _ in self._parsed)
        if orphans := len(annotations) - belonging:
            known = {image["id"] for image in images}
            first = next(a["id"] for a in annotations if a["image_id"] not in known)
            problem(
                "warn",
                f"{_of(orphans, annotations)} annotations are of no image in the "
                f"file, as annotation {first}",
                "They are left out; add the images, or remove the annotations",
            )
        if not found:
            empty = sum(not own for _, own, _ in self._parsed)
            without = f" ({empty:,} without objects)" if empty else ""
            text = f"{len(images):,} images{without}, {len(annotations):,} objects"
            problem("pass", text, "")
        found += self._classes(names)
        if dropped:
            annotation, image = dropped[0]
            size = f"{image['width']}x{image['height']}"
            problem(
                "warn",
                f"{_of(len(dropped), annotations)} objects are left out, such as "
                f"annotation {annotation['id']}, bbox {annotation['bbox']} and area "
                f"{annotation['area']} in {size} px: they are less than 1 px wide or "
                "high, without area, outside the image or marked with ignore",
                "Remove or correct them",
                "boxes",
            )
        found += _borders(path, np.array(boxes, float).reshape(-1, 6), bool(dropped))
        if (self.cfg.get("filter_cfg") or {}).get("filter_empty_gt") and not (
            self.cfg.get("test_mode")
            or learnable
            or any(f.status == "fail" for f in found)
        ):
            found.append(self._useless())
        yield from found

    def _classes(self, names: dict[Any, str]) -> Iterator[Finding]:
        """Check that each label means the class of that number in the config."""
        classes, labels = list(self.classes), self.dataset.cat2label
        path, listed = self.source, shorten([*names.values()])
        learnt = [names[category] for category in labels]
        if learnt == classes:
            others = [name for name in names.values() if name not in classes]
            if not others:
                text = f"{len(classes)}, as in the file: {shorten(classes)}"
                yield Finding("classes", "pass", text)
                return
            yield Finding(
                "classes",
                "warn",
                f"{path} has categories that are none of the {len(classes)} classes "
                f"and become background: {shorten(others)}",
                "To detect them as well, add them to metainfo=dict(classes=...) in the "
                "file's order",
            )
            return
        missing = [name for name in classes if name not in learnt]
        if not learnt:
            problem = (
                "none of the configured classes is in the file.\n"
                f"  configured: {shorten(classes)}\n  in the file: {listed}"
            )
            remedy = "Set metainfo=dict(classes=(...)) to names from the file, and "
            remedy += "num_classes of the head to their number"
        elif len(set(learnt)) < len(learnt):
            twice = [name for name, count in Counter(learnt).items() if count > 1]
            problem = f"more than one of its categories is called {shorten(twice)}"
            remedy = "Make them one"
        elif missing:
            problem = (
                f"has no category {shorten(missing)}. Labels are numbers of the "
                f"classes that it has, so {learnt[-1]} would be learnt or evaluated "
                f"as {classes[len(learnt) - 1]}"
            )
            remedy = (
                "Add the category to the file, also where it has no objects; or, in "
                "all datasets, leave it out of metainfo=dict(classes=...) and of "
                "num_classes"
            )
        else:
            problem = (
                "lists its categories in another order than the configured classes, "
                "and labels follow the file"
            )
            remedy = (
                f"Set metainfo=dict(classes=...) to the file's order: {shorten(learnt)}"
            )
        yield Finding("classes", "fail", f"{path}: {problem}", remedy)

    def _images(
        self, count: int | None, workers: int, hashed: bool
    ) -> Iterator[Finding]:
        """Check that images exist, can be read, and have the size in the file."""
        paths, source = self.paths(), self.source
        images = _Images(self, hashed)
        missing = _missing(paths) if images.local else []
        if len(missing) == len(paths) > 0:
            yield Finding(
                "images",
                "fail",
                f"{source}: none of {len(paths)} images it lists is there, such as "
                f"{paths[0]}",
                "Set data_prefix=dict(img=...) to their folder"
                if not os.path.isabs(self._file_name(0))
                else "Write file_name relative to the folder data_prefix=dict(img=...)",
            )
            return
        self.unreadable.update(missing)
        if missing:
            text = f"{_of(len(missing), paths)} images are missing, as {missing[0]}"
            yield self._unreadable(text, missing)
        there = [i for i, path in enumerate(paths) if path not in self.unreadable]
        if count is not None and count < len(there):
            chosen = np.linspace(0, len(there) - 1, count).astype(int)
            there = [there[i] for i in chosen]
        broken, other = {}, []
        for index, why, size, content in images.read(there, workers):
            stated = self._size(index)
            if why:
                broken[paths[index]] = why
                continue
            if hashed:
                self.contents[paths[index]] = content
            if stated not in (None, size):
                other.append((paths[index], *stated, *size))
        self.unreadable.update(broken)
        if broken:
            first, why = next(iter(broken.items()))
            yield self._unreadable(
                f"{_of(len(broken), there)} images that were read are broken, as "
                + (why if first in why else f"{first} ({why})"),
                list(broken),
            )
        if other:
            file, width, height, *real = other[0]
            yield Finding(
                "images",
                "fail",
                f"{source}: {_of(len(other), there)} images that were read have "
                f"another size than the file says, as {file}: {real[0]}x{real[1]} px, "
                f"not {width:g}x{height:g}",
                "Put back the images that were annotated, or correct width and height "
                "and, if they were scaled or turned, the boxes",
            )
        repeated = [name for name, times in Counter(paths).items() if times > 1]
        if repeated:
            yield Finding(
                "images",
                "warn",
                f"{source}: {len(repeated):,} files are listed as several images, as "
                f"{repeated[0]}",
                "Join their annotations under one image, or correct file_name",
            )
        elif not (missing or broken or other):
            looked = f"{len(there):,} of them read" if len(there) < len(paths) else ""
            looked = (looked or "read") if there else "not opened"
            yield Finding("images", "pass", f"{source}: {len(paths):,}, {looked}")

    def _unreadable(self, text: str, bad: Sequence[str]) -> Finding:
        """Report images, as a warning if the pipeline passes over as many."""
        remedy = "Restore them, or remove them from the dataset"
        allowed = 0
        for position, step in enumerate(self.cfg.get("pipeline") or []):
            if "max_unreadable" in step:
                allowed = step["max_unreadable"]
                text += f", of {allowed} that are passed over" if allowed else ""
                remedy += (
                    "; to train without them: --cfg-options "
                    f"{self.key}.pipeline.{position}.max_unreadable=N"
                )
        status = "fail" if len(bad) > allowed else "warn"
        return Finding("images", status, f"{self.source}: {text}", remedy)

    def _file_name(self, index: int) -> str:
        folder = (getattr(self.dataset, "data_prefix", None) or {}).get("img", "")
        return self.paths()[index].removeprefix(folder)

    def _size(self, index: int) -> tuple[float, float] | None:
        """Width and height that the annotation file states, if it does."""
        info = self._infos[index] if self._infos else {}
        return (
            (info["width"], info["height"]) if {"width", "height"} <= {*info} else None
        )


class _Images(Dataset):
    """The images of a dataset, without its transforms."""

    def __init__(self, check: DatasetCheck, hashed: bool) -> None:
        self.paths, self.hashed = check.paths(), hashed
        self.bare = self.load = None
        if isinstance(check.dataset, ClassificationDataset):
            self.bare = DATASETS.build({**check.cfg, "pipeline": []})
        else:
            steps = getattr(getattr(check.dataset, "pipeline", None), "transforms", [])
            loads = [step for step in steps if isinstance(step, LoadReadableImage)]
            self.load = loads[0] if loads else LoadReadableImage()
        # A request for each image would be too much to ask of a server.
        self.local = self.load is not None and isinstance(
            fileio.get_file_backend(
                self.paths[0] if self.paths else "", backend_args=self.load.backend_args
            ),
            fileio.LocalBackend,
        )

    def read(self, chosen: list[int], workers: int) -> Iterator[tuple]:
        """Yield of each image its index, what is wrong with it, its size and hash."""
        self.chosen = chosen
        loader = DataLoader(
            self,
            batch_size=max(1, min(64, len(chosen) // (4 * (workers or 1)))),
            num_workers=workers,
            collate_fn=list,
        )
        hidden = None if workers else True  # None: where no one looks
        with tqdm(total=len(chosen), unit="image", disable=hidden) as bar:
            for batch in loader:
                yield from batch
                bar.update(len(batch))

    def __getitem__(self, i: int) -> tuple[int, str, tuple[int, int], bytes]:
        index = self.chosen[i]
        try:
            if self.bare is not None:
                image = np.asarray(self.bare[index]["inputs"])
            else:
                image = self.load.read(self.paths[index])
        except (OSError, UserError) as error:
            return index, getattr(error, "text", str(error)), (0, 0), b""
        content = b""
        if self.hashed:
            pixels = np.ascontiguousarray(image)
            content = hashlib.blake2b(pixels, digest_size=16).digest()
        return index, "", image.shape[1::-1], content

    def __len__(self) -> int:
        return len(self.chosen)


def _borders(path: str, rows: np.ndarray, dropped: bool) -> Iterator[Finding]:
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
    if corners.all() and outside.mean() > _CORNERS:
        yield Finding(
            "boxes",
            "fail",
            f"{path}: {_of(outside.sum(), boxes)} boxes reach over the border of "
            "their image, and all would be inside as [x1, y1, x2, y2]",
            "COCO's are [x, y, width, height]: subtract x1 and y1 from x2 and y2, "
            "and write width * height as area",
        )
        return
    first = rows[outside][0]
    yield Finding(
        "boxes",
        "warn",
        f"{path}: {_of(outside.sum(), boxes)} boxes reach over the border of their "
        f"image by more than {_TOLERANCE} px, such as "
        f"[{', '.join(f'{value:g}' for value in first[:4])}] in "
        f"{first[4]:g}x{first[5]:g}",
        "Correct them, or width and height of their images: the part outside is "
        "learnt and evaluated with the object",
    )


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
