"""Read the labels that annotation tools export: COCO, Pascal VOC, YOLO and labelme.

supervision, globox, datumaro and labelformat were tried on these exports. Each loses
or moves objects in silence (images in sub-folders, boxes by one pixel, ids from 0), so
that the few rules that are needed stand here.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import yaml
from PIL import ExifTags
from torchvision.datasets.folder import IMG_EXTENSIONS, is_image_file
from tqdm import tqdm

from ghostdet.errors import UserError
from ghostdet.utils.files import open_image, open_json

PARTS = {"train": "train", "training": "train"}
PARTS |= {"val": "val", "valid": "val", "validation": "val", "test": "test"}
FORMATS = (
    "COCO JSON, Pascal VOC XML, YOLO (data.yaml or classes.txt beside labels/*.txt) or "
    "labelme JSON"
)
_NO_IMAGE = "labels have no image, and are left out"
_UNKNOWN = "objects have an unknown class, and are left out"
# Errors of reading what is not as expected.
_MISTAKES = (AttributeError, LookupError, TypeError, ValueError)
_MASKS = "mask|seg|depth|label|annot"  # in names of folders
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass
class Photo:
    """An image and its objects.

    Args:
        path: Its file.
        size: Width and height in px, as it is shown (EXIF's orientation applied).
        part: ``train``, ``val``, ``test``, or nothing if the export does not say.
        objects: COCO annotations without ids, with the name of the ``category``.
        listed: That a label file is or names it, objects or not.
    """

    path: Path
    size: tuple[int, int]
    part: str = ""
    objects: list[dict[str, Any]] = field(default_factory=list)
    listed: bool = False


@dataclass
class Export:
    """A dataset as another program wrote it.

    Args:
        root: Its folder.
        form: The form of its labels.
        classes: Names in the export's order.
        photos: All images, those without objects too.
        notes: What was left out or guessed, with the places.
    """

    root: Path
    form: str = ""
    classes: list[str] = field(default_factory=list)
    photos: list[Photo] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def note(self, text: str, example: object) -> None:
        """Note what was left out, and where."""
        self.notes[text].append(str(example))

    def said(self) -> list[str]:
        """List the notes, with their numbers and examples."""
        return [
            f"{len(places):,} {text}, such as {places[0]}"
            for text, places in self.notes.items()
        ]

    def add(self, photo: Photo, name: str, box: Sequence[float], **keys: Any) -> None:
        """Add an object by its left, top, right and bottom in px.

        One that has no area, or is there already, is left out, and noted.
        """
        left, top, right, bottom = map(float, box)
        left, right = sorted((left, right))
        top, bottom = sorted((top, bottom))
        width, height = right - left, bottom - top
        if not (math.isfinite(width * height) and width * height > 0):
            self.note("boxes without an area are left out", photo.path)
            return
        inside = left < photo.size[0] and top < photo.size[1]
        if not (inside and right > 0 and bottom > 0):
            self.note("boxes outside their image are left out", photo.path)
            return
        if name not in self.classes:
            self.classes.append(name)
        bbox = [round(value, 3) for value in (left, top, width, height)]
        if any((name, bbox) == (o["category"], o["bbox"]) for o in photo.objects):
            self.note("duplicate objects are left out", photo.path)
            return
        found = dict(category=name, bbox=bbox, area=round(width * height, 3), iscrowd=0)
        photo.objects.append({**found, **keys})


def read_export(root: str | Path) -> Export:
    """Read all images of a folder, and their labels.

    Args:
        root: The folder. Labels are found in it and in its sub-folders, and images by
            the names that the labels give, or by the labels' own names.

    Returns:
        The export, with the sizes of the image files.

    Raises:
        UserError: If there are no images or no labels, labels of two forms, or a file
            that cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"no folder at {str(root)!r}; give the folder of a dataset")
    files = list(_files(root))
    export = Export(root)
    images = [path for path in files if is_image_file(path.name)]
    for path in tqdm(images, unit="image", disable=None):  # shown in a terminal
        try:
            part = part_of(path.relative_to(root).parent)
            export.photos.append(Photo(path, _size(path), part))
        except OSError:  # Pillow's
            export.note("images cannot be read, and are left out", path)
    if not export.photos:
        raise UserError(
            f"{root} has no image that can be read ({', '.join(IMG_EXTENSIONS)}); give "
            "the folder of a dataset"
        )
    readers = _readers(files)
    if not readers:
        count = f"{len(export.photos):,} images and no labels"
        raise UserError(
            f"{root} has {count} in a form that ghostdet reads: {FORMATS}. Label the "
            "images, for example with labelme or CVAT, and type this again"
        )
    if len(readers) > 1:
        found = " and ".join(f"{form} ({paths[0]})" for form, paths in readers.items())
        raise UserError(
            f"{root} has labels of several forms: {found}; give a folder with one"
        )
    ((export.form, paths),) = readers.items()
    _READERS[export.form](export, paths)
    if export.form.startswith(("Pascal", "labelme")):  # which do not list classes
        export.classes.sort()
    if not any(photo.objects for photo in export.photos):
        raise UserError(
            f"{paths[0]} has no object for the {len(export.photos):,} images of {root}"
            + "".join(f"; {line}" for line in export.said())
        )
    _drop_masks(export)
    return export


def _drop_masks(export: Export) -> None:
    """Leave out images made of labelled ones, such as VOC's segmentations."""
    listed = [photo.path for photo in export.photos if photo.listed]
    folders, stems = {p.parent for p in listed}, {p.stem for p in listed}
    names = {p.name for p in listed}
    kept = []
    for photo in export.photos:
        path = photo.path
        mask = path.name not in names or re.search(_MASKS, path.parent.name, re.I)
        if mask and path.stem in stems and path.parent not in folders:
            text = "images are masks of labelled ones, by name, and are left out"
            export.note(text, photo.path)
        else:
            kept.append(photo)
    export.photos = kept


def part_of(path: Path) -> str:
    """Return the part (train, val, test) that a path names; the last such word wins.

    Example:
        >>> part_of(Path('annotations/instances_val2017.json')), part_of(Path('a.jpg'))
        ('val', '')
    """
    words = reversed(_words(path))
    return next((PARTS[word] for word in words if word in PARTS), "")


def _words(path: Path) -> list[str]:
    return [w for name in path.parts for w in re.findall("[a-z]+", name.lower())]


def _files(root: Path) -> Iterator[Path]:
    """Iterate over the files of a folder, through links, each folder once."""
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(folder, n) for n in sorted(names) if not n.startswith("."))


def _size(path: Path) -> tuple[int, int]:
    with open_image(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
        return image.size[::-1] if turned else image.size


def _readers(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Sort label files by their form."""
    found = defaultdict(list)
    for path in files:
        suffix = path.suffix.lower()
        if suffix == ".json":
            content = _json(path)
            if isinstance(content, dict) and "shapes" in content:
                found["labelme JSON"].append(path)
            elif isinstance(content, dict) and {"images", "categories"} <= {*content}:
                found["COCO JSON"].append(path)
        elif suffix == ".xml" and _xml(path).tag == "annotation":
            found["Pascal VOC XML"].append(path)
        elif suffix in (".yaml", ".yml"):
            content = _yaml(path)
            if isinstance(content, dict) and "names" in content:
                found["YOLO"].append(path)
        elif path.name == "classes.txt":
            found["YOLO"].append(path)
    return found


def _json(path: Path) -> Any:
    try:
        with open_json(path) as file:
            return json.load(file)
    except ValueError as error:  # in the JSON or its encoding
        raise UserError(f"{path} is not JSON: {error}; restore or remove it") from error


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise UserError(f"{path} is not YAML: {text}; restore or remove it") from error


def _xml(path: Path) -> ElementTree.Element:
    content = path.read_bytes()
    declared = re.match(rb"\s*<\?xml[^>]*encoding=[\"']([\w.-]+)", content)
    try:
        if b"<!ENTITY" in content:
            raise ValueError("it declares entities")
        # Decoded first, since expat does not know GB2312 and the like.
        text = content.decode(declared[1].decode() if declared else "utf-8-sig")
        return ElementTree.fromstring(re.sub(r"^\ufeff?\s*<\?xml[^>]*\?>", "", text))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path} is not XML: {error}; restore or remove it") from error


class _Finder:
    """Match label files to images."""

    def __init__(self, export: Export) -> None:
        self.export = export
        self.names: dict[str, list[Photo]] = defaultdict(list)
        for photo in export.photos:
            for name in {photo.path.name.lower(), photo.path.stem.lower()}:
                self.names[name].append(photo)

    def find(
        self,
        name: str,
        label: Path,
        stem: bool = True,
        missing: str = _NO_IMAGE,
    ) -> Photo | None:
        """Find an image by the path that a label gives, or by the label's own name.

        Of several, take the one whose path agrees most with the given one, then shares
        most words with the label's (``val/`` with ``instances_val.json``), then is
        nearest to it.
        """
        label = label.relative_to(self.export.root)
        given = [part.lower() for part in PurePosixPath(name.replace("\\", "/")).parts]
        part = part_of(label.parent if stem else label)

        def like(photo: Photo) -> tuple[int, int, int]:
            path = photo.path.relative_to(self.export.root)
            ends = [x.lower() == y for x, y in zip(path.parts[::-1], given[::-1])]
            equal = (ends + [False]).index(False)
            other = equal < 2 and part and photo.part and part != photo.part
            shared = len({*_words(label)} & {*_words(path.parent)})
            between = len({*label.parent.parts} ^ {*path.parent.parts})
            return (-1 if other else equal), (part == photo.part) + shared, -between

        for key in (*given[-1:], label.stem.lower() * stem):
            best = max(self.names.get(key, ()), key=like, default=None)
            if best is not None and like(best)[0] >= 0:  # not of another part
                best.listed = True
                return best
        self.export.note(missing, name or label)
        return None


def _read_coco(export: Export, paths: Sequence[Path]) -> None:
    finder, seen = _Finder(export), set()
    for path in paths:
        content, part = _json(path), part_of(path.relative_to(export.root))
        try:
            names = {c["id"]: c["name"] for c in content["categories"]}
            if not all(isinstance(name, str) and name for name in names.values()):
                raise ValueError(f"names of categories are {[*names.values()]}")
            names = {number: name.strip() for number, name in names.items()}
            annotations = content.get("annotations") or []
            used = {a["category_id"] for a in annotations}
            above = {c.get("supercategory") for c in content["categories"]}
            for number, name in names.items():
                # Roboflow's root, over the classes
                root = number == 0 and number not in used and name in above
                if name not in export.classes and not root:
                    export.classes.append(name)
            own = defaultdict(list)
            for annotation in annotations:
                own[annotation["image_id"]].append(annotation)
            for image in content["images"]:
                photo = finder.find(image["file_name"], path, stem=False)
                if photo is None:
                    continue
                if photo.path in seen:
                    text = "images are listed twice; the first entry is kept"
                    export.note(text, photo.path)
                    continue
                seen.add(photo.path)
                photo.part = part or photo.part
                stated = image.get("width"), image.get("height")
                if None not in stated and stated != photo.size:
                    text = "images differ in size from what their labels say"
                    export.note(text, f"{photo.path} ({photo.size}, not {stated})")
                for annotation in own[image["id"]]:
                    _add_coco(export, photo, annotation, names)
        except _MISTAKES as error:
            text = f"{type(error).__name__} {error}"
            raise UserError(f"{path} is not COCO JSON: {text}; correct it") from error


def _add_coco(export: Export, photo: Photo, annotation: dict, names: dict) -> None:
    name, box = names.get(annotation["category_id"]), annotation.get("bbox")
    points = annotation.get("segmentation")
    if name is None:
        example = f"category_id {annotation['category_id']} of {photo.path}"
        export.note(_UNKNOWN, example)
        return
    if not box and isinstance(points, list) and points:
        left, top, right, bottom = _around([v for polygon in points for v in polygon])
    elif box:
        left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    else:
        export.note("objects without a box are left out", photo.path)
        return
    keys = dict(iscrowd=int(annotation.get("iscrowd") or 0))
    if points:
        keys.update(segmentation=points, area=annotation.get("area") or None)
    keys = {key: value for key, value in keys.items() if value is not None}
    export.add(photo, name, (left, top, right, bottom), **keys)


def _around(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the box around points, ``x1, y1, x2, y2, ...``."""
    x, y = values[::2], values[1::2]
    return min(x), min(y), max(x), max(y)


def _read_voc(export: Export, paths: Sequence[Path]) -> None:
    finder, objects = _Finder(export), []
    for path in paths:
        tree = _xml(path)
        photo = finder.find(tree.findtext("filename") or "", path)
        for element in tree.findall("object"):
            names = "xmin", "ymin", "xmax", "ymax"
            try:
                box = [float(element.findtext(f"bndbox/{name}")) for name in names]
                box[::2], box[1::2] = sorted(box[::2]), sorted(box[1::2])
            except (TypeError, ValueError) as error:
                text = f"an object has no bndbox of four numbers ({error})"
                raise UserError(f"{path}: {text}; correct it") from error
            if photo is not None:
                name = (element.findtext("name") or "").strip()
                objects.append((photo, name, box))
    # VOC counts pixels from 1, and xmax, ymax are inside the box; some tools from 0.
    first = 1 if min((min(box) for _, _, box in objects), default=1) >= 1 else 0
    export.form += f", pixels counted from {first}"
    for photo, name, (left, top, right, bottom) in objects:
        export.add(photo, name, (left - first, top - first, right, bottom))
    for path in _files(export.root):
        if path.parts[-3:-1] == ("ImageSets", "Main") and path.stem in PARTS:
            for line in _lines(path):
                for photo in finder.names.get((line.split() or [""])[0].lower(), ()):
                    photo.part = PARTS[path.stem]


def _read_yolo(export: Export, paths: Sequence[Path]) -> None:
    paths = sorted(paths, key=lambda p: (p.suffix == ".txt", len(p.parts)))
    path, *others = (p for p in paths if p.suffix == paths[0].suffix)
    names = _yolo_names(path)
    for other in others:
        if _yolo_names(other) != names:
            text = "have different classes; give a folder with one list"
            raise UserError(f"{path} and {other} {text}")
    content = {} if path.suffix == ".txt" else _yaml(path)
    _yolo_parts(export, path, content)
    pose = "kpt_shape" in content  # keypoints follow each box
    export.classes += dict.fromkeys(names[number] for number in sorted(names))
    labels = {}
    for photo in export.photos:
        parts = list(photo.path.relative_to(export.root).parts)
        if "images" in parts:  # the last one, as in YOLO's own code
            parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
        label = export.root.joinpath(*parts).with_suffix(".txt")
        if not label.is_file():
            continue
        photo.listed = True
        labels.setdefault(label.parent, set()).add(label)
        for number, line in enumerate(_lines(label), 1):
            if not line.strip():
                continue
            try:
                kind, *values = map(float, line.split())
            except ValueError as error:
                raise UserError(f"{label}:{number}: {error}; correct it") from error
            # A fifth is a score, and more are keypoints.
            boxed = len(values) in (4, 5) or (pose and len(values) > 5)
            if not boxed and (len(values) < 6 or len(values) % 2):
                text = f"{len(values) + 1} numbers, expected 5, or a polygon"
                raise UserError(f"{label}:{number}: {text}; correct it")
            places = values[:4] if boxed else values
            if max(places) > 2:
                text = f"{max(places):g}, expected shares of the image, 0 to 1"
                raise UserError(f"{label}:{number}: {text}; divide by its size")
            if boxed:
                x, y, w, h = places
                box = x - w / 2, y - h / 2, x + w / 2, y + h / 2
            else:
                box = _around(places)
            if kind in names:
                box = [value * photo.size[i % 2] for i, value in enumerate(box)]
                export.add(photo, names[int(kind)], box)
            else:
                export.note(_UNKNOWN, f"{label}:{number}: {kind:g}")
    for folder, read in labels.items():
        for path in sorted({*folder.glob("*.txt")} - read):
            if re.match(r"\d+( [-+.e\d]+){4}", path.read_text(errors="ignore")):
                export.note(_NO_IMAGE, path)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: {error}; save it as UTF-8") from error


def _yolo_names(path: Path) -> dict[int, str]:
    """Read the names of classes by their numbers."""
    names = _lines(path) if path.suffix == ".txt" else _yaml(path)["names"] or ()
    try:
        if isinstance(names, str):
            raise TypeError(f"names is {names!r}")
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        named = {int(number): str(name).strip() for number, name in pairs}
    except (TypeError, ValueError) as error:
        text = "expected a list of names, or names by numbers"
        raise UserError(f"{path}: {error}, {text}; correct it") from error
    return {number: name for number, name in named.items() if name}


def _yolo_parts(export: Export, path: Path, content: dict) -> None:
    """Set the parts that a ``data.yaml`` names by folders or lists of images."""
    finder = _Finder(export)
    for key in ("train", "val", "test"):
        entries = content.get(key) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            parts = PurePosixPath(str(entry).lstrip("/")).parts
            parts = [part for part in parts if part not in ("..", ".")]
            ends = (path.parent.joinpath(*parts[i:]) for i in range(len(parts)))
            named = next(filter(Path.exists, ends), None)
            if named is None:
                continue
            photos = [photo for photo in export.photos if named in photo.path.parents]
            if named.is_file():
                lines = map(str.strip, _lines(named))
                missing = "listed images are missing"
                photos = [
                    finder.find(line, path, stem=False, missing=missing)
                    for line in lines
                    if line
                ]
            for photo in filter(None, photos):
                photo.part = key


def _read_labelme(export: Export, paths: Sequence[Path]) -> None:
    finder = _Finder(export)
    for path in paths:
        content = _json(path)
        photo = finder.find(content.get("imagePath") or "", path)
        if photo is None:
            continue
        groups: dict[Any, tuple[str, list[float]]] = {}
        try:
            for shape in content["shapes"]:
                kind, points = shape.get("shape_type") or "polygon", shape["points"]
                if kind == "circle":  # its center and a point on it
                    (x, y), edge = points
                    r = math.dist((x, y), edge)
                    points = [(x - r, y - r), (x + r, y + r)]
                elif kind not in ("rectangle", "polygon", "rotation", "mask"):
                    export.note(f"shapes of type {kind} have no box", path)
                    continue
                label, group = str(shape["label"]).strip(), shape.get("group_id")
                key = len(groups) if group is None else (label, group)
                flat = [float(value) for point in points for value in point]
                groups.setdefault(key, (label, []))[1].extend(flat)
        except _MISTAKES as error:
            text = f"{type(error).__name__} {error}"
            raise UserError(f"{path} is not labelme's: {text}; correct it") from error
        for label, values in groups.values():
            export.add(photo, label, _around(values))


_READERS = {
    "COCO JSON": _read_coco,
    "Pascal VOC XML": _read_voc,
    "YOLO": _read_yolo,
    "labelme JSON": _read_labelme,
}
