"""Run an exported detector with NumPy, OpenCV and ONNX Runtime or OpenVINO.

This file needs nothing else of ghostdet. ``ghostdet export`` puts a copy of it beside
each model, named ``ghostdet_runtime.py``::

    from ghostdet_runtime import Detector

    detector = Detector("detector.onnx")
    boxes, scores, labels, names = detector("photo.jpg")

From a shell, with one line of JSON for each detection, and pictures::

    python ghostdet_runtime.py detector.onnx photo.jpg folder --out pictures
"""

from __future__ import annotations

import argparse
import colorsys
import functools
import hashlib
import json
import os
import sys
import unicodedata
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

FORMAT_VERSION = 2  # 1 had no checksum of the .json file
# Package that runs each kind of file.
PACKAGES = {".onnx": "onnxruntime", ".xml": "openvino"}
OUTPUTS = ("boxes", "scores", "labels")
# OpenVINO's names.
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
# Suffixes of image files. OpenCV writes colours in all but the last.
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp", ".pgm")
# Markers of ITU-T T.81, table B.1.
_JPEG_START = b"\xff\xd8\xff"
_JPEG_SCAN = b"\xff\xda"
_JPEG_END = b"\xff\xd9"

Run = Callable[[np.ndarray], "tuple[np.ndarray, ...]"]


class DetectorError(Exception):
    """Error of a file, an image or an installation, with advice."""


class Detections(NamedTuple):
    """Detections in an image, the highest score first.

    Attributes:
        boxes: float32 (K, 4): x1, y1, x2, y2 in pixels of the image.
        scores: float32 (K,).
        labels: int64 (K,): indices into :attr:`Detector.classes`.
        names: K class names.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: list[str]


class Detector:
    """An exported detector on the CPU.

    Images are resized and normalised, and boxes scaled back, exactly as MMDetection's
    ``Resize`` and ``DetDataPreprocessor`` do. Use a detector in one thread at a time;
    copy it for others, or pickle it for other processes.

    Args:
        path: The ``.onnx`` file, or OpenVINO's ``.xml`` file with its ``.bin`` file
            beside it; in both cases with the ``.json`` file of the export.
        threads: Number of threads for the network. Defaults to one for each core.
        score_thr: Return only detections with higher scores. The ``score_thr`` in the
            config's ``test_cfg`` applies in any case.
        precision: ``"fp32"``, or ``"bf16"`` for OpenVINO on a CPU that has it, which is
            faster and changes scores by some thousandths. (OpenVINO's own default
            chooses bf16 silently.) Applies to the unquantised part of an INT8 file.

    Attributes:
        classes: Names of the classes, in the order of the labels.

    Raises:
        DetectorError: If a file is missing or damaged, or the package that runs it is
            not installed.

    Example:
        >>> detector = Detector("detector.onnx")  # doctest: +SKIP
        >>> boxes, scores, labels, names = detector("photo.jpg")  # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int | None = None,
        score_thr: float = 0.0,
        precision: str = "fp32",
    ) -> None:
        self._arguments = (path, threads, score_thr, precision)
        path = Path(path)
        meta = read_meta(path)
        self.score_thr = score_thr
        self.classes: tuple[str, ...] = tuple(meta["classes"])
        self.mean: list[float] = meta["mean"]
        self.std: list[float] = meta["std"]
        self.to_rgb: bool = meta["to_rgb"]
        self.resize: dict[str, Any] | None = meta["resize"]
        # Normalise by a table of 256 values for each channel: exact, and one pass. A
        # single mean applies to all channels, as in DetDataPreprocessor.
        mean, std = (
            np.broadcast_to(np.float32(numbers), 3)[:, None]
            for numbers in (self.mean, self.std)
        )
        self._tables = (np.arange(256, dtype=np.float32) - mean) / std
        if precision not in PRECISIONS:
            raise DetectorError(
                f"precision is {precision!r}, expected {' or '.join(PRECISIONS)}"
            )
        if threads is not None and not (isinstance(threads, Integral) and threads > 0):
            raise DetectorError(f"threads is {threads!r}, expected 1 or more")
        if not isinstance(score_thr, Real) or score_thr != score_thr:  # NaN
            raise DetectorError(f"score_thr is {score_thr!r}, expected a number")
        shape = None
        if self.resize is not None and not self.resize["keep_ratio"]:
            shape = (1, 3, *reversed(self.resize["scale"]))
        try:
            if path.suffix == ".onnx":
                self._run = _start_onnxruntime(path, threads, precision)
            else:
                self._run = _start_openvino(path, threads, precision, shape)
        except ImportError as error:
            package = PACKAGES[path.suffix]
            raise DetectorError(
                f"{path} is run by {package}, which cannot be imported ({error}); "
                f"type: pip install {package}"
            ) from error

    def __call__(self, image: str | os.PathLike[str] | np.ndarray) -> Detections:
        """Detect objects in an image.

        Args:
            image: A path, or an array as ``cv2.imread`` returns it: uint8 (H, W, 3) in
                the order blue, green, red. Also grey, (H, W) or (H, W, 1), with alpha,
                (H, W, 4), and uint16, treated as OpenCV treats such a PNG. A file is
                turned by its EXIF orientation, and boxes refer to the turned image.

        Returns:
            The detections.

        Raises:
            DetectorError: If it is not such an image, or too narrow to be resized.
        """
        image = as_bgr(image)
        resized = self._resized(image)
        boxes, scores, labels = (
            output[0] for output in self.infer(self._normalized(resized))
        )
        keep = scores > self.score_thr
        # In MMDetection's order of rounding: 1 / s in double precision.
        height, width = (
            1 / (new / old) for new, old in zip(resized.shape[:2], image.shape[:2])
        )
        labels = labels[keep]
        return Detections(
            boxes[keep] * np.array([width, height] * 2, np.float32),
            scores[keep],
            labels,
            [self.classes[label] for label in labels],
        )

    def infer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Run the network alone.

        Args:
            images: float32 (N, 3, H, W), normalised, neither resized nor padded.

        Returns:
            Boxes, float32 (N, K, 4) in pixels of ``images``, scores, float32 (N, K), in
            descending order, and labels, int64 (N, K). Rows with a score of 0 are
            empty. The next call may overwrite the arrays.
        """
        return self._run(images)

    def __reduce__(self) -> tuple:
        # Sessions can neither be copied nor sent to another process.
        return type(self), self._arguments

    def _resized(self, image: np.ndarray) -> np.ndarray:
        if self.resize is None:
            return image
        height, width = image.shape[:2]
        size = scale = tuple(self.resize["scale"])
        if self.resize["keep_ratio"]:
            # As mmcv.rescale_size.
            factor = min(
                max(scale) / max(height, width), min(scale) / min(height, width)
            )
            size = int(width * factor + 0.5), int(height * factor + 0.5)
            if 0 in size:
                raise DetectorError(
                    f"an image of {width}x{height} px, resized to fit into "
                    f"{scale[0]}x{scale[1]}, has less than half a pixel on its short "
                    "side; cut it into shorter pieces"
                )
        if size == (width, height):
            return image
        return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)

    def _normalized(self, image: np.ndarray) -> np.ndarray:
        batch = np.empty((1, 3, *image.shape[:2]), np.float32)
        planes = cv2.split(image)[:: -1 if self.to_rgb else 1]
        for plane, table, out in zip(planes, self._tables, batch[0]):
            cv2.LUT(plane, table, out)
        return batch


def draw(
    image: str | os.PathLike[str] | np.ndarray, detections: Detections
) -> np.ndarray:
    """Draw detections on a copy of an image.

    Better detections lie on top. A label that finds no free place at its box is left
    out. OpenCV draws ASCII only: a name with other characters is drawn without them and
    without accents, after the number of its class (label + 1).

    Args:
        image: A path or an array, see :class:`Detector`.
        detections: What the detector returned for it.

    Returns:
        uint8 (H, W, 3), blue, green, red.
    """
    picture = as_bgr(image).copy()
    height, width = picture.shape[:2]
    line = max(round((height + width) / 600), 2)
    font = cv2.FONT_HERSHEY_SIMPLEX, max((height + width) / 2800, 0.4)
    edges = np.array([width, height] * 2) - 1
    boxes = np.clip(detections.boxes.round(), 0, edges).astype(int).tolist()
    found = list(zip(boxes, *detections[1:]))
    for box, _, label, _ in reversed(found):
        fill, _ = _bgr(label)
        cv2.rectangle(picture, box[:2], box[2:], fill, line)
    taken = np.zeros((height, width), bool)
    for (x1, y1, _, y2), score, label, name in found:
        letters = filter(str.isprintable, unicodedata.normalize("NFKD", name))
        text = "".join(filter(str.isascii, letters)).strip()
        if text != name:
            text = f"#{label + 1} {text}".strip()
        text += f" {score:.2f}"
        (w, h), below = cv2.getTextSize(text, *font, line // 2)
        w, h = w + 2 * line, h + below + 2 * line
        x = max(min(x1, width - w), 0)
        for y in (y1 - h, y1, y2 - h, y2):  # above, within and below the box
            spot = np.s_[y : y + h, x : x + w]
            if 0 <= y <= height - h and not taken[spot].any():
                taken[spot] = True
                fill, ink = _bgr(label)
                cv2.rectangle(picture, (x, y, w, h), fill, cv2.FILLED)
                place = x + line, y + h - below - line
                cv2.putText(picture, text, place, *font, ink, line // 2, cv2.LINE_AA)
                break
    return picture


def colors_of(label: int) -> tuple[str, str]:
    """Return the colour of a class, and black or white for text on it.

    Example:
        >>> colors_of(0)
        ('#188af2', '#ffffff')
    """
    # Steps of the golden ratio around the circle of hues keep classes apart. With the
    # brightness, the first 7,000 classes all differ.
    hue, value = (0.58 + label * 0.618034) % 1, 0.95 - label * 0.11 % 0.25
    rgb = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.9, value)]
    bright = np.dot(rgb, (0.299, 0.587, 0.114)) > 120
    return "#{:02x}{:02x}{:02x}".format(*rgb), "#000000" if bright else "#ffffff"


def _bgr(label: int) -> list[tuple[int, ...]]:
    return [tuple(bytes.fromhex(color[1:])[::-1]) for color in colors_of(label)]


def list_images(path: Path, out: Path | None = None) -> list[tuple[Path, str]]:
    """List an image, or all in a folder and its sub-folders, with their relative paths.

    Images are known by their suffix or content. Hidden files are skipped, and so is
    ``out`` if it is in the folder.

    Raises:
        DetectorError: If a folder has no image.
    """
    if not path.is_dir():
        return [(path, path.name)]
    written = out.resolve() if out and path.resolve() in out.resolve().parents else None
    found = [
        (file, name)
        for file in sorted(path.rglob("*"))
        for name in [file.relative_to(path).as_posix()]
        if file.is_file()
        and "/." not in f"/{name}"
        and written not in file.resolve().parents
        and (file.suffix.lower() in SUFFIXES or is_image(file))
    ]
    if not found:
        raise DetectorError(f"no image in {path}; give an image or a folder of images")
    return found


def is_image(path: Path) -> bool:
    """Tell from its content whether OpenCV can read a file."""
    try:
        # OpenCV 5.0 crashes on a name that is not Unicode.
        return cv2.haveImageReader(str(path).encode(errors="replace").decode())
    except cv2.error:  # OpenCV 4.10's, of OpenEXR
        return False


def list_pictures(images: list[tuple[Path, str]], out: Path) -> list[Path]:
    """Name a picture in ``out`` for each image from :func:`list_images`.

    It has the name of its image, and is a JPEG if the image's format has no colours.

    Raises:
        DetectorError: If ``out`` is a file, or a picture would replace an image or
            another picture.
    """
    if out.is_file():
        raise DetectorError(f"--out {out} is a file; give a folder")
    pictures, used = [], {path.resolve() for path, _ in images}
    for _, name in images:
        suffix = "" if name.lower().endswith(SUFFIXES[:-1]) else ".jpg"
        picture = Path(out, f"{name}{suffix}")
        if picture.resolve() in used:
            raise DetectorError(
                f"--out would write {picture} over an image or another picture; give "
                "another folder, or images whose names differ"
            )
        used.add(picture.resolve())
        pictures.append(picture)
    return pictures


def read_meta(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the JSON file beside a model, and check that they belong together.

    Raises:
        DetectorError: If a file is missing or damaged, or they do not belong together.
    """
    path = Path(path)
    if path.suffix not in PACKAGES:
        raise DetectorError(
            f"{path} is not an exported detector; give the .onnx or .xml file of an "
            "export"
        )
    described = path.with_suffix(".json")
    files = [*_files(path), described]
    names = ", ".join(file.name for file in files)
    for file in files:
        if not file.is_file():
            raise DetectorError(
                f"no file {file}; copy all files of the export: {names}"
            )
    try:
        meta = json.loads(described.read_text(encoding="utf-8"))
        version = meta["format_version"]
        expected = meta["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DetectorError(
            f"{described} does not describe an exported detector "
            f"({type(error).__name__}: {error}); copy or export it again"
        ) from error
    if version != FORMAT_VERSION:
        raise DetectorError(
            f"{described} has format_version {version}, and this module reads "
            f"{FORMAT_VERSION}; use the ghostdet_runtime.py written beside the model"
        )
    if checksum(path, meta) != expected:
        raise DetectorError(
            f"{path} and {described.name} do not belong together (sha256 differs): one "
            f"is damaged, or from another export; copy all files of one export: {names}"
        )
    return meta


def checksum(path: str | os.PathLike[str], meta: dict[str, Any]) -> str:
    """Compute the SHA-256 of a model and its description.

    Args:
        path: The model's file. OpenVINO's ``.bin`` file beside it counts too.
        meta: The content of the ``.json`` file; its ``sha256`` does not count.
    """
    described = {key: value for key, value in meta.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for file in _files(Path(path)):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def as_bgr(image: str | os.PathLike[str] | np.ndarray) -> np.ndarray:
    """Read an image, or convert an array to what reading its file would give.

    Args:
        image: A path or an array, see :class:`Detector`.

    Returns:
        uint8 (H, W, 3), blue, green, red.

    Raises:
        DetectorError: If it is not such an image.
    """
    if isinstance(image, (str, os.PathLike)):
        return _read_image(Path(image))
    if not isinstance(image, np.ndarray):
        raise DetectorError(
            f"the image is a {type(image).__module__}.{type(image).__name__}, expected "
            "a path or an array as cv2.imread returns it (for a Pillow image: "
            "np.asarray(image.convert('RGB'))[..., ::-1])"
        )
    shape = image.shape
    if image.ndim not in (2, 3) or shape[2:] not in ((), (1,), (3,), (4,)):
        raise DetectorError(
            f"the image has shape {shape}, expected (H, W), or (H, W, C) with 1, 3 or "
            "4 channels; give one image at a time"
        )
    if 0 in shape:
        raise DetectorError(f"the image has shape {shape}: it is empty")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise DetectorError(
            f"the image has dtype {image.dtype}, expected uint8 or uint16; for floats "
            "from 0 to 1: (image * 255).round().astype(np.uint8)"
        )
    if shape[2:] == (3,):
        return image
    code = cv2.COLOR_BGRA2BGR if shape[2:] == (4,) else cv2.COLOR_GRAY2BGR
    return cv2.cvtColor(image, code)


def is_truncated_jpeg(content: bytes) -> bool:
    """Tell whether a JPEG lacks its end marker; OpenCV 4 fills the rest with grey.

    Coded data cannot hold the marker by chance, but an EXIF thumbnail has one, and
    motion photographs and padded files do not end with it. So it is searched for after
    the first start of scan. Other formats need no such check: OpenCV (4.10 and 5.0)
    returns None for a truncated PNG, WebP or BMP.
    """
    if not content.startswith(_JPEG_START):
        return False
    position = 2
    while (marker := content[position : position + 2]) != _JPEG_SCAN:
        if marker[:1] != b"\xff":
            break
        if marker == b"\xff\xff":  # fill byte
            position += 1
        else:  # a segment: its marker, then its length, which counts itself
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return content.rfind(_JPEG_END, position) < 0


def _read_image(path: Path) -> np.ndarray:
    try:
        content = path.read_bytes()
        if is_truncated_jpeg(content):
            raise OSError("the JPEG data ends early")
        # Raises an error if the file is empty, returns None if it is not an image.
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise OSError("no known format")
    except (OSError, ValueError, cv2.error) as error:  # a name may hold a null byte
        reason = getattr(error, "strerror", None) or error
        raise DetectorError(f"{path}: cannot be read as an image ({reason})") from error
    return image


def _files(path: Path) -> list[Path]:
    """List the files that hold a model."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def _start_onnxruntime(path: Path, threads: int | None, precision: str) -> Run:
    import onnxruntime

    if precision != "fp32":
        raise DetectorError(
            f"ONNX Runtime does not compute in {precision} on CPUs; export the "
            "detector with --format openvino"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # many classes; the checksum says the file is intact
        raise _too_old(path, onnxruntime, error) from error
    return lambda images: tuple(session.run(OUTPUTS, {"image": images}))


@functools.cache
def openvino_core() -> Any:
    """Return the one Core of the process.

    Each Core of OpenVINO 2026.4 installs a stack for signal handlers and restores the
    former one when it is deleted. If two are deleted in the order of their creation,
    the second restores freed memory, and the next signal with a handler in Python, such
    as PyTorch's for DataLoader workers, ends the process.
    """
    import openvino

    return openvino.Core()


def _start_openvino(
    path: Path, threads: int | None, precision: str, shape: tuple[int, ...] | None
) -> Run:
    """Compile for the given shape, which is faster, and for others on demand."""
    import openvino

    core = openvino_core()
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
    }
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads

    @functools.cache
    def compiled(shape: tuple[int, ...] | None) -> Any:
        model = core.read_model(os.fspath(path))
        if shape is not None:
            model.reshape(shape)
        return core.compile_model(model, "CPU", config)

    def run(images: np.ndarray) -> tuple[np.ndarray, ...]:
        model = compiled(shape if images.shape == shape else None)
        outputs = model({"image": images}, share_inputs=True, share_outputs=True)
        return tuple(outputs[name] for name in OUTPUTS)

    try:
        compiled(shape)
    except RuntimeError as error:
        raise _too_old(path, openvino, error) from error
    return run


def _too_old(path: Path, package: Any, error: Exception) -> DetectorError:
    name = PACKAGES[path.suffix]
    reason = " ".join(str(error).split())
    return DetectorError(
        f"{name} {package.__version__} cannot run {path}: {reason}; "
        f"type: pip install --upgrade {name}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the detections in images, one line of JSON for each.

    Returns:
        The exit code: 1 if the model or an image could not be used.
    """
    parser = argparse.ArgumentParser(
        description="Detect objects in images, printing a line of JSON for each: "
        "file_name, category_id (counted from 1), category_name, bbox (x, y, width, "
        "height in pixels) and score"
    )
    parser.add_argument("model", help=".onnx or .xml file")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file or folder")
    parser.add_argument("--out", metavar="DIR", help="draw the detections here")
    parser.add_argument("--threads", type=int, metavar="N")
    parser.add_argument("--score-thr", type=float, default=0.0, metavar="SCORE")
    parser.add_argument("--precision", choices=list(PRECISIONS), default="fp32")
    args = parser.parse_args(arguments)
    code = 0
    try:
        detector = Detector(args.model, args.threads, args.score_thr, args.precision)
        out = Path(args.out) if args.out else None
        images = [i for path in args.images for i in list_images(Path(path), out)]
        pictures = list_pictures(images, out) if out else [None] * len(images)
    except DetectorError as error:
        print(_printable(f"error: {error}"), file=sys.stderr)
        return 1
    for (path, name), picture in zip(images, pictures):
        try:
            image = as_bgr(path)
            detections = detector(image)
            if picture:
                picture.parent.mkdir(parents=True, exist_ok=True)
                drawn = cv2.imencode(picture.suffix, draw(image, detections))[1]
                picture.write_bytes(drawn.tobytes())
        except (DetectorError, OSError) as error:
            print(_printable(f"error: {error}"), file=sys.stderr)
            code = 1
            continue
        for box, score, label, class_name in zip(*detections):
            x1, y1, x2, y2 = box.tolist()
            line = dict(
                file_name=name,
                category_id=int(label) + 1,
                category_name=class_name,
                bbox=[x1, y1, x2 - x1, y2 - y1],
                score=float(score),
            )
            print(_printable(json.dumps(line, ensure_ascii=False)))
    return code


def _printable(text: str) -> str:
    """Escape the bytes of a file name that are not Unicode."""
    return text.encode(errors="backslashreplace").decode()


if __name__ == "__main__":
    sys.exit(main())
