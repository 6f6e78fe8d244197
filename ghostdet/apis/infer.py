"""Detection in images of the user's own, and their classification."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os.path import realpath
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from matplotlib.colors import to_rgb
from mmcv.transforms import Compose
from mmdet.apis import inference_detector
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn
from torchvision.ops import batched_nms
from tqdm import tqdm

from ghostdet.apis.amp import use_amp
from ghostdet.apis.model import load_model
from ghostdet.checks.classes import check_num_classes
from ghostdet.config import load_config, reason, require, require_detector
from ghostdet.datasets.classification import load_image
from ghostdet.errors import UserError
from ghostdet.models.exported_detector import ExportedDetector, is_exported
from ghostdet.runtime import (
    SUFFIXES,
    Detections,
    DetectorError,
    colors_of,
    draw,
    is_image,
    list_images,
    list_pictures,
)
from ghostdet.utils.components import build_dataset, first_metainfo, is_classifier
from ghostdet.utils.files import check_writable
from ghostdet.utils.text import shorten
from ghostdet.utils.tiles import tiles

SCORE = 0.3  # the lowest score of a detection that is drawn
TOP = 5  # classes of an image
SHOWN = 10  # images whose classes are printed
_LEAST_TILE = 64  # px
_RATE = 25  # frames a second, for a video that does not name its own


def load_detector(
    config: str | Path | Config, checkpoint: str | Path, amp: bool = False
) -> nn.Module:
    """Build a detector and fill it with trained weights, all of them.

    Args:
        config: The config it was trained with, or for published weights their
            ``.json`` file.
        checkpoint: Its checkpoint, or what it was exported to, ``.onnx`` or ``.xml``.
        amp: Mixed precision, see :func:`~ghostdet.apis.amp.use_amp`.

    Returns:
        The detector in evaluation mode, on the GPU if there is one, as MMDetection's
        ``init_detector`` returns it: for ``inference_detector``. An exported one is an
        :class:`~ghostdet.models.ExportedDetector`.

    Raises:
        UserError: If a file is missing, the weights or classes do not fit, or it is no
            detector.
    """
    cfg = config if isinstance(config, Config) else load_config(config)
    require(cfg, "model", "test_dataloader")
    require_detector(cfg, "load_detector")
    init_default_scope(cfg.get("default_scope", "mmdet"))
    dataset = build_dataset(cfg.test_dataloader.dataset)
    dataset_meta = first_metainfo(dataset.metainfo)
    if is_exported(checkpoint):
        model = ExportedDetector(checkpoint, "bf16" if amp else "fp32")
        model.check(cfg, dataset_meta.get("classes"))
        model.cfg = cfg
        model.to(get_device()).eval()
    else:
        model = load_model(cfg, checkpoint)
        if amp:
            use_amp(model)
    model.dataset_meta = {**dataset_meta, **model.dataset_meta}
    if "language_model" not in cfg.model:  # whose classes are words
        check_num_classes(model, model.dataset_meta.get("classes"))
    return model


def infer(
    images: str | Path,
    config: str | Path | Config,
    checkpoint: str | Path,
    out: str | Path = "outputs",
    score_thr: float | str | Path = SCORE,
    amp: bool = False,
    tile: int | None = None,
) -> Path:
    """Detect objects in images or a video, or classify images.

    A detector writes a picture with boxes for each image, under its own name, and
    ``results.json``, all detections in COCO's results format: ``image_id``,
    ``category_id``, ``bbox`` (x, y, width, height in pixels of the image) and
    ``score``, with ``file_name`` and ``category_name``. Images that the config's test
    annotations list, by their paths, and categories that they name have their
    identifiers. Others get the next free numbers.

    For a video it writes ``NAME.mp4`` with the boxes, and ``NAME.jsonl``, a line for
    each detection, with ``frame``, counted from 0, in place of the image.

    A classifier writes ``results.json`` alone: for each image ``file_name`` and
    ``predictions``, up to five, the likeliest first, with ``category_id`` (the label,
    from 0), ``category_name`` and ``score``. Where the weights name no classes, as
    official ones do not, names are the labels.

    Args:
        images: An image, a folder (with its sub-folders), or a video.
        config: The config the model was trained with, or for published weights
            their ``.json`` file.
        checkpoint: Its checkpoint, or an exported detector.
        out: Folder to write to.
        score_thr: The lowest score of a detection that is drawn, or the
            ``figures.json`` of a report with the best one of each class; the files of
            results hold all.
        amp: Mixed precision: with fp16 on a GPU, bf16 on a CPU.
        tile: Side of tiles in px, to detect in parts of large images. They overlap by
            a quarter; what a border may cut is taken from the neighbour, and NMS joins
            the rest. Boxes alone, no masks.

    Returns:
        The path of ``results.json``, or of ``NAME.jsonl``.

    Raises:
        UserError: If there is no image, ``out`` cannot be written or is the folder of
            the images, the checkpoint does not fit, or, once all others are done, if
            there are images without results.
    """
    images, out = Path(images), Path(out)
    if not images.exists():
        raise UserError(f"no image at {str(images)!r}; give one, a folder, or a video")
    check_writable(out, "--out")
    video = _open_video(images)
    if video is None:
        paths = _list(images, out)
        try:
            pictures = list_pictures(paths, out)
        except DetectorError as error:
            raise UserError(str(error)) from error
    elif _video_in(out, images).resolve() == images.resolve():
        raise UserError(f"--out would write over {images}; give another folder")
    cfg = config if isinstance(config, Config) else load_config(config)
    require(cfg, "model", "test_dataloader")
    if is_exported(checkpoint):
        require_detector(cfg, "an exported file")
    if is_classifier(cfg):
        asked = {"--tile": tile, "a video": video, "--score-thr": score_thr}
        for what, value in asked.items():
            if value not in (None, SCORE):
                require_detector(cfg, what)
        model = _Classifier(cfg, checkpoint, amp)
    else:
        model = _Detector(cfg, checkpoint, amp, out, score_thr, tile)
    if video is not None:
        return model.follow(video, images)

    results: list[dict[str, Any]] = []
    failed: list[str] = []
    target = out / "results.json"
    try:
        rows = zip(tqdm(paths, unit="image"), pictures)
        for number, ((path, name), picture) in enumerate(rows, start=1):
            try:
                results += model.predict(path, name, number, picture)
            except UserError as error:
                failed.append(error.text)
            except (cv2.error, MemoryError, RuntimeError) as error:  # by its size
                failed.append(f"{path}: {str(error).strip() or 'not enough memory'}")
    finally:  # also if it is interrupted
        target.write_text(json.dumps(results, indent=1))
    count = len(paths) - len(failed)
    print(f"{count} image(s), {model.summary(results)}\nresults: {target}")
    if failed:
        raise UserError("\n".join(["not all images have results", *failed]))
    return target


class _Detector:
    """Detects objects in one image after another, and draws them."""

    def __init__(
        self,
        cfg: Config,
        checkpoint: str | Path,
        amp: bool,
        out: Path,
        score_thr: float | str | Path,
        tile: int | None,
    ) -> None:
        if tile is not None and tile < _LEAST_TILE:
            raise UserError(f"--tile is {tile}, expected {_LEAST_TILE} px or more")
        self.out, self.tile, self.score_thr = out, tile, score_thr
        self.model = load_detector(cfg, checkpoint, amp)
        first, *steps = get_test_pipeline_cfg(cfg)
        self.load = Compose([first])
        take = dict(type="mmdet.LoadImageFromNDArray")
        take["to_float32"] = first.get("to_float32", False)
        self.pipeline = Compose([take, *steps])
        self.names = self.model.dataset_meta["classes"]
        self.least = torch.tensor(_least_scores(score_thr, self.names))
        self.image_ids, self.category_ids = _coco_ids(cfg)
        self.last_id = _highest(self.image_ids)
        unknown = [name for name in self.names if name not in self.category_ids]
        first_id = _highest(self.category_ids) + 1
        self.category_ids |= {name: i for i, name in enumerate(unknown, first_id)}

    def detect(self, image: np.ndarray) -> InstanceData:
        """Detect the objects in an image, uint8 (H, W, 3), or in its tiles."""
        if self.tile is None:
            found = inference_detector(self.model, image, self.pipeline)
            return found.pred_instances.cpu()
        height, width = image.shape[:2]
        overlap = self.tile // 4
        parts = []
        for x1, y1, x2, y2 in tiles((0, 0, width, height), self.tile, overlap):
            part = np.ascontiguousarray(image[y1:y2, x1:x2])
            found = inference_detector(self.model, part, self.pipeline)
            found = found.pred_instances.cpu()
            # Objects near a border inside the image are complete in a neighbour.
            inner = torch.tensor([x1 > 0, y1 > 0, x2 < width, y2 < height])
            centers = (found.bboxes[:, :2] + found.bboxes[:, 2:]) / 2
            sides = torch.tensor([x2 - x1, y2 - y1]) - centers
            distances = torch.cat([centers, sides], 1)
            kept = found[~(inner & (distances < overlap / 4)).any(1)]
            offset = torch.tensor([x1, y1, x1, y1])
            boxes = kept.bboxes.float() + offset
            kept = InstanceData(bboxes=boxes, scores=kept.scores, labels=kept.labels)
            parts.append(kept)
        merged = InstanceData.cat(parts)
        scores = merged.scores.float()
        return merged[batched_nms(merged.bboxes, scores, merged.labels, 0.5)]

    def draw(self, image: np.ndarray, found: InstanceData) -> np.ndarray:
        """Draw the detections that reach the lowest score."""
        shown = found[found.scores >= self.least[found.labels]]
        for mask, label in zip(shown.get("masks", ()), shown.labels):
            color = 255 * np.array(to_rgb(colors_of(int(label))[0]))[::-1]
            image = np.where(mask[..., None], (image + color) / 2, image)
        labels = shown.labels.numpy()
        names = [self.names[label] for label in labels]
        arrays = shown.bboxes.float().numpy(), shown.scores.float().numpy(), labels
        return draw(image.astype(np.uint8), Detections(*arrays, names))

    def rows(self, found: InstanceData, **keys: Any) -> list[dict[str, Any]]:
        """Give detections in COCO's results format, with further keys."""
        return [
            dict(
                **keys,
                category_id=self.category_ids[self.names[label]],
                category_name=self.names[label],
                bbox=[x1, y1, x2 - x1, y2 - y1],
                score=score,
            )
            for (x1, y1, x2, y2), score, label in zip(
                found.bboxes.tolist(), found.scores.tolist(), found.labels.tolist()
            )
        ]

    def predict(
        self, path: Path, name: str, number: int, picture: Path
    ) -> list[dict[str, Any]]:
        """Draw the detections in an image and give all of them."""
        image = self.load(dict(img_path=str(path)))["img"]
        found = self.detect(image)
        mmcv.imwrite(self.draw(image, found), str(picture))
        number = self.image_ids.get(realpath(path), self.last_id + number)
        return self.rows(found, image_id=number, file_name=name)

    def follow(self, video: mmcv.VideoReader, path: Path) -> Path:
        """Detect in a video, frame by frame."""
        target = self.out / f"{path.stem}.jsonl"
        picture, rate = _video_in(self.out, path), video.fps
        if not rate > 0:
            rate = _RATE
            print(f"{path} has no frame rate: {picture} gets {_RATE} frames a second")
        writer, count, drawn, frames = cv2.VideoWriter(), 0, 0, 0
        try:
            with open(target, "w", encoding="utf-8") as lines:
                total = max(video.frame_cnt, 0) or None
                for frame in tqdm(iter(video), unit="frame", total=total):
                    if not frames:  # the video's size may be that before a turn
                        size = frame.shape[1::-1]
                        code = cv2.VideoWriter_fourcc(*"mp4v")
                        if not writer.open(str(picture), code, rate, size):
                            raise UserError(f"OpenCV cannot write {picture}")
                    found = self.detect(frame)
                    writer.write(self.draw(frame, found))
                    for row in self.rows(found, frame=frames):
                        lines.write(json.dumps(row, ensure_ascii=False) + "\n")
                    frames, count = frames + 1, count + len(found)
                    drawn += int((found.scores >= self.least[found.labels]).sum())
        finally:
            writer.release()
        if not frames:
            target.unlink()
            raise UserError(
                f"{path}: no frame can be read; convert it to another format"
            )
        if frames < video.frame_cnt:
            print(f"{path}: {frames} of {video.frame_cnt} frames could be read")
        print(
            f"{frames} frame(s), {count} detections, {drawn} of them drawn "
            f"(--score-thr {self.score_thr})\n"
            f"video: {picture}\nresults: {target}"
        )
        return target

    def summary(self, results: list[dict[str, Any]]) -> str:
        """Count the detections."""
        least = dict(zip(self.names, self.least.tolist()))
        drawn = sum(r["score"] >= least[r["category_name"]] for r in results)
        return (
            f"{len(results)} detections, {drawn} of them drawn "
            f"(--score-thr {self.score_thr})\npictures: {self.out}"
        )


def _least_scores(score_thr: float | str | Path, classes: Sequence[str]) -> list[float]:
    """Give the lowest score of each class that is drawn."""
    try:
        if isinstance(score_thr, (int, float)):
            best = dict.fromkeys(classes, score_thr)
        else:
            rows = json.loads(Path(score_thr).read_bytes())["classes"]
            best = {row["name"]: row["threshold"] for row in rows}
        scores = [SCORE if best[name] is None else best[name] for name in classes]
        if not all(0 <= score <= 1 for score in scores):
            raise ValueError(f"scores are from 0 to 1, not {scores}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--score-thr is {str(score_thr)!r} ({reason(error)}), expected a score "
            f"such as {SCORE}, or the figures.json of a report on this detector"
        ) from error
    return scores


class _Classifier:
    """Classifies one image after another."""

    def __init__(self, cfg: Config, checkpoint: str | Path, amp: bool) -> None:
        self.model = load_model(cfg, checkpoint)
        if amp:
            use_amp(self.model)
        self.pipeline = Compose(get_test_pipeline_cfg(cfg))
        self.classes = self.model.dataset_meta.get("classes")

    @torch.no_grad()
    def predict(
        self, path: Path, name: str, number: int, picture: Path
    ) -> list[dict[str, Any]]:
        """Give the likeliest classes of an image."""
        inputs = self.pipeline(load_image(str(path)))[None]
        (prediction,) = self.model.test_step(dict(inputs=inputs))
        scores = prediction["pred_score"]
        top = scores.topk(min(TOP, len(scores)))
        predictions = [
            dict(
                category_id=label,
                category_name=self.classes[label] if self.classes else str(label),
                score=score,
            )
            for score, label in zip(top.values.tolist(), top.indices.tolist())
        ]
        return [dict(file_name=name, predictions=predictions)]

    def summary(self, results: list[dict[str, Any]]) -> str:
        """List the classes of the first images."""
        lines = [
            f"{result['file_name']}: "
            + ", ".join(
                f"{found['category_name']} {found['score']:.1%}"
                for found in result["predictions"]
            )
            for result in results[:SHOWN]
        ]
        if len(results) > SHOWN:
            lines.append("...")
        return "\n".join(["the likeliest classes of each", *lines])


def _open_video(path: Path) -> mmcv.VideoReader | None:
    """Open a file if it is a video."""
    if not path.is_file() or path.suffix.lower() in SUFFIXES or is_image(path):
        return None
    try:
        str(path).encode()
    except UnicodeEncodeError:  # OpenCV 5.0 crashes
        raise UserError(
            f"the name of {str(path)!r} is not Unicode; rename it"
        ) from None
    video = mmcv.VideoReader(str(path))
    return video if video.opened and video.width else None


def _video_in(out: Path, video: Path) -> Path:
    """Return the file to which the frames of a video are drawn."""
    return out / f"{video.stem}.mp4"


def _list(images: Path, out: Path) -> list[tuple[Path, str]]:
    """List images with their names, and print other files of the folder."""
    try:
        found = list_images(images, out)
    except DetectorError as error:
        raise UserError(f"{error}, or a video") from error
    known = {path for path, _ in found}
    others = [
        path.name
        for path in sorted(images.rglob("*"))
        if not (
            path in known or path.is_dir() or out.resolve() in path.resolve().parents
        )
        and "/." not in f"/{path.relative_to(images).as_posix()}"
    ]
    if others:
        print(f"{images}: skipped files that are not images: {shorten(others)}")
    return found


def _coco_ids(cfg: Config) -> tuple[dict[str, int], dict[str, int]]:
    """Identifiers of images by path and of categories by name, where known."""
    dataset = cfg.test_dataloader.dataset
    root = Path(dataset.get("data_root") or "")
    file = root / (dataset.get("ann_file") or "")
    if file.suffix != ".json" or not file.is_file():
        return {}, {}
    folder = root / (dataset.get("data_prefix") or {}).get("img", "")
    try:
        annotations = json.loads(file.read_bytes())
        return (
            {realpath(folder / i["file_name"]): i["id"] for i in annotations["images"]},
            {c["name"]: c["id"] for c in annotations["categories"]},
        )
    except (ValueError, KeyError, TypeError) as error:
        print(
            f"{file} is not read as COCO annotations ({error!r}): identifiers of "
            "images and categories are counted from 1"
        )
        return {}, {}


def _highest(ids: dict[str, Any]) -> int:
    return max((i for i in ids.values() if isinstance(i, int)), default=0)
