"""Checks of datasets before a run, where mistakes cost seconds, not hours."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
from mmdet.registry import DATASETS
from mmengine import fileio
from mmengine.dataset import Compose
from tqdm.contrib.concurrent import process_map

from ghostdet.checks.annotations import COCO_KEYS, CocoFile, Files, read_coco
from ghostdet.checks.classification import ClassificationCheck
from ghostdet.checks.findings import Finding
from ghostdet.datasets.classification import ClassificationDataset
from ghostdet.datasets.transforms.loading import LoadReadableImage
from ghostdet.errors import ConfigError
from ghostdet.utils.components import iter_datasets, type_name
from ghostdet.utils.text import shorten

# Methods that a subclass overrides to read files in its own way.
_READING = (
    "full_init",
    "load_data_list",
    "parse_data_info",
    "filter_data",
    "_join_prefix",
    "get_data_info",
    "prepare_data",
    "__getitem__",
)
# px by which boxes may reach over a border: some tools count pixels from 1.
_TOLERANCE = 1
# Share of boxes over the border at which they are taken to be corners.
_CORNERS = 0.2


def check_dataset(dataset_cfg: dict) -> None:
    """Check that a dataset is where its configuration says, and as it should be.

    MMDetection's own words for a wrong class name are "need at least one array to
    concatenate". Here, the files, the layout of the JSON and the class names are
    checked, and the error says what to type. Images are not opened:
    :class:`~ghostdet.datasets.LoadReadableImage` does that as they are needed.

    All class names have to be in the annotation file, in its order: MMDetection leaves
    out those that are not and numbers the others as the file does, in silence.

    The annotation file is parsed once here and again by MMDetection: about 10 s
    more for the 450 MB of COCO's training set.

    Args:
        dataset_cfg: Configuration of a :class:`mmdet.datasets.CocoDataset`, of one of
            this package's datasets of classification, or of a wrapper that holds one
            as ``dataset`` or several as ``datasets``. A dataset of another kind, also
            a subclass that reads files in its own way, is not checked.

    Raises:
        UserError: If the annotation file, the image directory or more images than the
            pipeline passes over are missing, the file is not JSON or not COCO, nothing
            in it bears one of the classes, its classes are fewer or in another order,
            or nothing is left to learn; or what a dataset of classification raises.
        ConfigError: If the dataset cannot be built.

    Example:
        >>> cfg = dict(type='RepeatDataset', times=2, dataset=dict(
        ...     type='CocoDataset', data_root='nowhere', ann_file='train.json',
        ...     data_prefix=dict(img='train/')))
        >>> check_dataset(cfg)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ghostdet.errors.UserError: nowhere/train.json: no such annotation file. ...
    """
    for key, cfg in iter_datasets(dataset_cfg):
        _raise_first(check_of(cfg, {}, key).findings())


def check_evaluation(
    ann_file: str, backend_args: dict | None = None, key: str = "val_evaluator"
) -> None:
    """Check that COCO's evaluation can run on an annotation file.

    Args:
        ann_file: ``ann_file`` of :class:`mmdet.evaluation.CocoMetric`.
        backend_args: Its ``backend_args``.
        key: Its place in the config.

    Raises:
        UserError: If the file is missing or no annotation file.
    """
    _raise_first([evaluation_finding(ann_file, {}, backend_args, key)])


def _raise_first(findings: Iterator[Finding] | Sequence[Finding]) -> None:
    for finding in findings:
        if finding.status == "fail":
            raise finding.error()


def evaluation_finding(
    ann_file: str,
    files: Files,
    backend_args: dict | None = None,
    key: str = "val_evaluator",
) -> Finding:
    """Check that COCO's evaluation can run on an annotation file.

    Args:
        ann_file: As of :func:`check_evaluation`.
        files: As of :func:`read_coco`.
        backend_args: As of :func:`check_evaluation`.
        key: As of :func:`check_evaluation`.
    """
    if not _is_there("isfile", ann_file, backend_args):
        return Finding(
            "evaluator",
            "fail",
            f"{ann_file}: no such annotation file, which the evaluator's ann_file "
            "names",
            f"Give the dataset's file: --cfg-options {key}.ann_file=FILE",
        )
    coco = read_coco(ann_file, files, backend_args)
    if isinstance(coco, Finding):
        return coco
    if without := int((coco.crowd < 0).sum()):
        return Finding(
            "evaluator",
            "warn",
            f"{ann_file}: {_of(without, coco.crowd)} annotations have no iscrowd, "
            "which is taken for 0",
            "Write iscrowd=0 into each, or iscrowd=1 where it is a group",
        )
    return Finding("evaluator", "pass", f"{ann_file}, all with iscrowd")


def _is_there(kind: str, path: str, backend_args: dict | None) -> bool:
    """``isfile`` or ``isdir``, where the backend can tell."""
    backend = fileio.get_file_backend(path, backend_args=backend_args)
    return not hasattr(backend, kind) or getattr(backend, kind)(path)


def check_of(
    cfg: dict, files: Files, key: str = "dataset"
) -> DatasetCheck | ClassificationCheck:
    """The check for a dataset, no wrapper, by its type.

    Args:
        cfg: Its configuration.
        files: As of :func:`read_coco`.
        key: Its place in the config, for remedies.

    Raises:
        UserError: If the dataset cannot be built.
    """
    kind = cfg.get("type")
    if isinstance(kind, str):
        kind = DATASETS.get(kind)
    if isinstance(kind, type) and issubclass(kind, ClassificationDataset):
        return ClassificationCheck(cfg, key)
    return DatasetCheck(cfg, files, key)


@dataclass
class DatasetCheck:
    """A check of one dataset, no wrapper, step by step.

    Args:
        cfg: Its configuration.
        files: As of :func:`read_coco`.
        key: Its place in the config, for remedies.

    Attributes:
        dataset: Built without reading anything; None for a dataset that is not
            checked, since it reads files in its own way.
        classes: Of the configuration.
        coco: Its annotation file, once :meth:`findings` got that far.
        unreadable: Images that were found to be missing or broken.
        contents: Checksum of the pixels of each image that was read, by path.

    Raises:
        ConfigError: If the dataset cannot be built.
    """

    same_classes: ClassVar[str] = (
        "Set the same metainfo=dict(classes=...) in all of them"
    )

    cfg: dict
    files: Files
    key: str = "dataset"
    dataset: Any = field(init=False, default=None)
    classes: Sequence[str] = field(init=False, default=())
    coco: CocoFile | None = field(init=False, default=None)
    unreadable: set[str] = field(init=False, default_factory=set)
    contents: dict[str, bytes] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        # Needs MMCV's operators, which importing this module must not.
        from mmdet.datasets import CocoDataset

        kind = self.cfg.get("type")
        if kind is None:
            raise ConfigError(f"a dataset has no type, only {shorten(list(self.cfg))}")
        if isinstance(kind, str):
            name, kind = kind, DATASETS.get(kind)
            if kind is None:
                raise ConfigError(
                    f"{self.key} has the type {name!r}, which is not in the registry "
                    f"{DATASETS.name}; correct it there or with --cfg-options "
                    f"{self.key}.type=NAME"
                )
        # Subclasses that read a file of their own kind do as they like.
        if not isinstance(kind, type) or any(
            getattr(kind, method, None) is not getattr(CocoDataset, method)
            for method in _READING
        ):
            return
        cfg = self.cfg.copy()
        cfg.update(pipeline=[], lazy_init=True)
        try:
            self.dataset = DATASETS.build(cfg)
        except Exception as error:  # constructors raise what they like
            if kind.__init__ is not CocoDataset.__init__:
                return  # it may be for the arguments above
            raise ConfigError(f"the dataset cannot be built: {error}") from error
        self.classes = classes = self.dataset.metainfo["classes"]
        if isinstance(classes, str):
            raise ConfigError(
                f"metainfo.classes is the word {classes!r}, expected a tuple or a "
                f"file; write classes=({classes!r},)"
            )

    @property
    def used(self) -> np.ndarray:
        """Indices of the images that the dataset has, after its filter and indices."""
        coco, filter_cfg = self.coco, self._filter
        used = coco.sizes.min(1) >= filter_cfg.get("min_size", 0)
        if filter_cfg.get("filter_empty_gt", False):
            used[np.setdiff1d(np.arange(len(used)), coco.image[self._wanted])] = False
        used = np.flatnonzero(used)
        indices = self.cfg.get("indices")
        if isinstance(indices, int):
            return used[:indices] if indices >= 0 else used[indices:]
        return used if indices is None else used[list(indices)]

    @property
    def known(self) -> bool:
        """True if the annotation file could be read."""
        return self.coco is not None

    @property
    def source(self) -> str:
        """The annotation file."""
        return self.coco.path

    def __len__(self) -> int:
        """The number of images that are used."""
        return len(self.used)

    def elsewhere(self, part: str) -> str:
        """Options that give a part other images."""
        return f"{self.key}.ann_file=FILE {part}_evaluator.ann_file=FILE"

    def compose(self, pipeline: Sequence[dict]) -> Callable[[dict], dict | None]:
        """Build a pipeline that takes :meth:`samples`."""
        return Compose(pipeline)

    def paths(self) -> list[str]:
        """The files of the images that are used."""
        folder = self.dataset.data_prefix.get("img", "")
        names = self.coco.file_names[self.used].tolist()
        return [os.path.join(folder, name) for name in names]

    def findings(
        self, images: int | None = 0, workers: int = 0, hashed: bool = False
    ) -> Iterator[Finding]:
        """Check files, annotations, classes, boxes and images.

        Args:
            images: How many images to read, evenly spread; None for all.
            workers: Processes that read them, with a progress bar; 0 for this one.
            hashed: Fill ``contents``.

        Yields:
            What was found. The checks are ``annotations``, ``classes``, ``boxes`` and
            ``images``.
        """
        if self.dataset is None:
            yield Finding(
                "annotations",
                "warn",
                f"{self.cfg['type']} reads its files in its own way and is not checked",
            )
            return
        if missing := self._missing_file():
            yield missing
            return
        coco = read_coco(self.dataset.ann_file, self.files, self.dataset.backend_args)
        if isinstance(coco, Finding):
            yield coco
            return
        self.coco = coco
        found = list(self._annotations())
        yield from found
        if not len(coco.images) or (coco.unlabelled and self._labelled):
            return
        yield from self._classes()
        if len(coco.annotations) or self._labelled:
            yield from self._boxes()
        yield from self._images(images, workers, hashed)

    @property
    def _filter(self) -> dict:
        return {} if self.dataset.test_mode else self.dataset.filter_cfg or {}

    @property
    def _labelled(self) -> bool:
        """True if images without objects are left out."""
        return self._filter.get("filter_empty_gt", False)

    @property
    def _wanted(self) -> np.ndarray:
        """Mask of the annotations of configured classes on images of the file."""
        coco = self.coco
        wanted = [i for i, name in enumerate(coco.names) if name in self.classes]
        return np.isin(coco.category, wanted) & (coco.image >= 0)

    def _missing_file(self) -> Finding | None:
        dataset, cfg = self.dataset, self.cfg
        images = dataset.data_prefix.get("img", "")
        expected = [cfg.get("ann_file", ""), cfg.get("data_prefix", {}).get("img", "")]
        remedy = (
            "Give the directory of the dataset with --data-root DIR. It must hold\n"
            + "\n".join(f"  {fileio.join_path('DIR', path)}" for path in expected)
        )
        if not _is_there("isfile", dataset.ann_file, dataset.backend_args):
            text = f"{dataset.ann_file}: no such annotation file"
            return Finding("annotations", "fail", text, remedy)
        if images and not _is_there("isdir", images, dataset.backend_args):
            return Finding(
                "images", "fail", f"{images}: no such image directory", remedy
            )
        return None

    def _annotations(self) -> Iterator[Finding]:
        """Check that MMDetection and pycocotools can use the ids."""
        coco, path = self.coco, self.coco.path

        def problem(status: str, text: str, remedy: str) -> Finding:
            return Finding("annotations", status, f"{path}: {text}", remedy)

        sound = True
        if coco.unlabelled and self._labelled:
            yield problem(
                "fail",
                "JSON but not COCO annotations: no list annotations (found keys "
                "images, categories and maybe others)",
                f"Expected an object with the lists {', '.join(COCO_KEYS)}",
            )
            return
        if not len(coco.images):
            yield problem("fail", "lists no images", "Expected at least one")
            return
        for name in ("images", "annotations"):
            counts = Counter(getattr(coco, name).tolist())
            repeated = [i for i, times in counts.items() if times > 1]
            if repeated:
                sound = False
                yield problem(
                    "fail",
                    f"two of its {name} have the id {repeated[0]} "
                    f"({len(repeated):,} ids are repeated)",
                    "Give each its own",
                )
        unknown = np.flatnonzero(coco.category < 0)
        if len(unknown):
            sound = False
            yield problem(
                "fail",
                f"annotation {coco.annotations[unknown[0]]} has the category_id "
                f"{coco.category_ids.item(unknown[0])!r}, which is none of the "
                f"categories' ({_of(len(unknown), coco.category)})",
                "MMDetection would leave it out: add the category, or remove it",
            )
        orphans = np.flatnonzero(coco.image < 0)
        if len(orphans):
            sound = False
            yield problem(
                "warn",
                f"{_of(len(orphans), coco.image)} annotations are of no image in the "
                f"file, as annotation {coco.annotations[orphans[0]]}",
                "They are left out; add the images, or remove the annotations",
            )
        if sound:
            empty = len(coco.images) - len(np.unique(coco.image))
            without = f" ({empty:,} without objects)" if empty else ""
            yield problem(
                "pass",
                f"{len(coco.images):,} images{without}, {len(coco.image):,} objects",
                "",
            )

    def _classes(self) -> Iterator[Finding]:
        """Check that the file has the configured classes, in their order."""
        path, classes, names = self.coco.path, list(self.classes), self.coco.names
        present = [name for name in dict.fromkeys(names) if name in classes]
        twice = sorted({name for name in present if names.count(name) > 1})
        if not present:
            yield Finding(
                "classes",
                "fail",
                f"{path}: none of the configured classes is in the file.\n"
                f"  configured: {shorten(classes)}\n"
                f"  in the file: {shorten(names)}",
                "Set metainfo=dict(classes=(...)) to names from the file, and "
                "num_classes of the head to their number",
            )
        elif twice:
            yield Finding(
                "classes",
                "fail",
                f"{path}: more than one of its categories is called {shorten(twice)}, "
                "and MMDetection would take them for different classes",
                "Make them one",
            )
        elif present != classes:
            # CocoDataset.cat2label numbers the classes that are present in the order of
            # the file's categories, whatever the order of metainfo.
            missing = [name for name in classes if name not in names]
            problem = (
                f"has no category {shorten(missing)}"
                if missing
                else "lists its categories in another order than the configured classes"
            )
            yield Finding(
                "classes",
                "fail",
                f"{path} {problem}. MMDetection leaves out missing classes and numbers "
                "the others in the order of the file, so labels would mean other "
                "classes from the first difference on",
                f"Set metainfo=dict(classes=...) to the file's order: "
                f"{shorten(present)}",
            )
        elif unexpected := [name for name in names if name not in classes]:
            yield Finding(
                "classes",
                "warn",
                f"{path} has categories that are none of the {len(classes)} classes "
                f"and become background: {shorten(unexpected)}",
                "To detect them as well, add them to metainfo=dict(classes=...) in the "
                "file's order",
            )
        else:
            yield Finding(
                "classes",
                "pass",
                f"{len(classes)}, as in the file: {shorten(classes)}",
            )

    def _boxes(self) -> Iterator[Finding]:
        """Check that boxes are in their images, and that something is left to learn."""
        coco = self.coco
        path, wanted = coco.path, self._wanted
        which = np.flatnonzero(wanted)
        boxes, sizes = coco.boxes[which], coco.sizes[coco.image[which]]
        thin = (boxes[:, 2:].min(1, initial=np.inf) < 1) | (coco.areas[which] <= 0)
        shown = which[~thin & (coco.crowd[which] <= 0)]
        if self._labelled and not len(shown):
            yield Finding(
                "boxes",
                "fail",
                f"{path}: none of its {len(coco.annotations)} annotations is an object "
                f"of the classes {shorten(self.classes)} ({len(which)} crowds or "
                "boxes of less than 1 px)",
                "Give a file with annotated objects",
            )
            return
        least = self._filter.get("min_size", 0)
        if self._labelled and (coco.sizes[coco.image[shown]].min(1) < least).all():
            yield Finding(
                "boxes",
                "fail",
                f"{path}: no image with objects is left, since filter_cfg leaves out "
                f"those whose smaller side is less than min_size={least} px",
                "Lower it",
            )
            return
        ends = boxes[:, :2] + boxes[:, 2:]
        over = np.maximum(-boxes[:, :2], ends - sizes).max(1, initial=-np.inf)
        outside = over > _TOLERANCE
        corners = (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= sizes + _TOLERANCE)
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
        for mask, problem, remedy in (
            (
                thin,
                "are less than 1 px wide or high, or have no area",
                "MMDetection leaves them out of training; remove or correct them",
            ),
            (
                outside & ~thin,
                f"reach over the border of their image by more than {_TOLERANCE} px",
                "Correct them, or width and height of their images: the part outside "
                "is learnt and evaluated with the object",
            ),
        ):
            if mask.any():
                first = int(np.flatnonzero(mask)[0])
                box = ", ".join(f"{value:g}" for value in boxes[first])
                size = "x".join(f"{side:g}" for side in sizes[first])
                yield Finding(
                    "boxes",
                    "warn",
                    f"{path}: {_of(mask.sum(), boxes)} boxes {problem}, such as "
                    f"annotation {coco.annotations[which[first]]}, [{box}] in {size}",
                    remedy,
                )
        if not (thin | outside).any():
            yield Finding(
                "boxes", "pass", f"{len(boxes):,}, all inside their images, none empty"
            )

    def _images(
        self, count: int | None, workers: int, hashed: bool
    ) -> Iterator[Finding]:
        """Check that images exist, can be read, and have the size in the file."""
        coco, path, paths = self.coco, self.coco.path, self.paths()
        position, loading = self._loading()
        if loading.get("backend_args") != self.cfg.get("backend_args"):
            yield Finding(
                "images", "warn", f"{path}: not looked for, since they lie elsewhere"
            )
            return
        folder = self.dataset.data_prefix.get("img", "")
        backend = fileio.get_file_backend(
            folder, backend_args=loading.get("backend_args")
        )
        # A request for each image would be too much to ask of a server.
        listed = isinstance(backend, fileio.LocalBackend)
        missing = _missing(paths) if listed else []
        if len(missing) == len(paths) > 0:
            yield Finding(
                "images",
                "fail",
                f"{path}: none of {len(paths)} images it lists is there, such as "
                f"{paths[0]}",
                "Set data_prefix=dict(img=...) to their folder",
            )
            return
        self.unreadable.update(missing)
        allowed = loading.get("max_unreadable", 0)
        excused = (
            f"Restore them, or remove their entries from {path}; to train without "
            f"them: --cfg-options {self.key}.pipeline.{position}.max_unreadable=N"
            if "max_unreadable" in loading
            else f"Restore them, or remove their entries from {path}"
        )

        def problem(text: str, bad: Sequence[str]) -> Finding:
            status = "fail" if len(bad) > allowed else "warn"
            passed = f", of {allowed} that are passed over" if allowed else ""
            return Finding("images", status, f"{path}: {text}{passed}", excused)

        if missing:
            yield problem(
                f"{_of(len(missing), paths)} images are missing, as {missing[0]}",
                missing,
            )
        there = np.flatnonzero(~np.isin(paths, missing)) if missing else None
        there = np.arange(len(paths)) if there is None else there
        if count is not None and count < len(there):
            there = there[np.linspace(0, len(there) - 1, count).astype(int)]
        read = [paths[i] for i in there]
        measured = _measure_all(loading, read, workers, hashed)
        broken = {p: why for p, why in zip(read, measured) if isinstance(why, str)}
        self.unreadable.update(broken)
        if broken:
            first, why = next(iter(broken.items()))
            yield problem(
                f"{_of(len(broken), read)} images that were read are broken, as "
                f"{first} ({why})",
                list(broken),
            )
        sizes = coco.sizes[self.used[there]]
        other = []
        for file, (width, height), found in zip(read, sizes, measured):
            if isinstance(found, str):
                continue
            if found[:2] != (width, height):
                other.append((file, f"{width:g}x{height:g}", found[:2]))
            if hashed:
                self.contents[file] = found[2]
        if other:
            file, stated, (width, height) = other[0]
            yield Finding(
                "images",
                "fail",
                f"{path}: {_of(len(other), read)} images that were read have another "
                f"size than the file says, as {file}: {width}x{height} px, not "
                f"{stated}",
                "Put back the images that were annotated, or correct width and height "
                "and, if they were scaled or turned, the boxes",
            )
        names = Counter(paths)
        if len(names) < len(paths):
            repeated = [name for name, times in names.items() if times > 1]
            yield Finding(
                "images",
                "warn",
                f"{path}: {len(repeated):,} files are listed as several images, as "
                f"{repeated[0]}",
                "Join their annotations under one image, or correct file_name",
            )
        elif not (missing or broken or other):
            looked = f"{len(read):,} of them read" if len(read) < len(paths) else "read"
            looked = f"{looked}, of the size in the file" if read else "not opened"
            known = listed or len(read) == len(paths)
            there = "are there" if known else "elsewhere, not looked for"
            yield Finding("images", "pass", f"{len(paths):,} {there}, {looked}")

    def _loading(self) -> tuple[int, dict]:
        """The transform that loads images, and its position in the pipeline."""
        pipeline = self.cfg.get("pipeline") or []
        for position, transform in enumerate(pipeline):
            if type_name(transform.get("type")).startswith("Load"):
                return position, transform
        return 0, next(iter(pipeline), {})

    def samples(self) -> list[dict]:
        """Return the input of a pipeline for some readable images.

        Returns:
            As of ``CocoDataset.get_data_info``; none where a ``proposal_file`` would
            add to them.
        """
        dataset, coco = self.dataset, self.coco
        if dataset.proposal_file is not None:
            return []
        dataset.cat_ids = [
            i for i, name in zip(coco.categories, coco.names) if name in self.classes
        ]
        dataset.cat2label = {i: label for label, i in enumerate(dataset.cat_ids)}
        samples = [
            dataset.parse_data_info(
                {
                    "raw_img_info": {**image, "img_id": image["id"]},
                    "raw_ann_info": annotations,
                }
            )
            for image, annotations in json.loads(coco.sample)
        ]
        return [s for s in samples if s["img_path"] not in self.unreadable]


def _missing(paths: list[str]) -> list[str]:
    """Those that are not on the disk; each folder is listed once."""
    folders: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            try:
                folders[folder] = set(os.listdir(folder or "."))
            except OSError:
                folders[folder] = set()
        if name not in folders[folder]:
            missing.append(path)
    return missing


def _measure_all(
    loading: dict, paths: list[str], workers: int, hashed: bool
) -> list[tuple[int, int, bytes] | str]:
    """Read images as a pipeline does: width, height and checksum, or what is wrong."""
    arguments = {"color_type", "imdecode_backend", "backend_args"} & loading.keys()
    load = LoadReadableImage(**{name: loading[name] for name in arguments})
    measure = partial(_measure, load, hashed)
    if not workers or not paths:
        return list(map(measure, paths))
    return process_map(
        measure,
        paths,
        max_workers=workers,
        chunksize=max(1, min(64, len(paths) // (4 * workers))),
        desc="images",
        unit="image",
        disable=None,  # where no one looks
    )


def _measure(
    load: LoadReadableImage, hashed: bool, path: str
) -> tuple[int, int, bytes] | str:
    try:
        image = load.read(path)
    except OSError as error:
        return str(error)
    height, width = image.shape[:2]
    content = hashlib.blake2b(image, digest_size=16).digest() if hashed else b""
    return width, height, content


def _of(count: int, whole: Sequence) -> str:
    return f"{count:,} of {len(whole):,}"
