"""Detection in images of the user's own, and their classification."""

from __future__ import annotations

import json
from os.path import realpath
from pathlib import Path
from typing import Any

import cv2
import mmcv
import torch
from mmcv.transforms import Compose
from mmdet.apis import inference_detector
from mmdet.registry import DATASETS, VISUALIZERS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from torch import nn
from torchvision.datasets.folder import is_image_file
from tqdm import tqdm

from ghostdet.apis.amp import use_amp
from ghostdet.apis.model import load_model
from ghostdet.checks.classes import check_num_classes
from ghostdet.config import load_config, require, require_detector
from ghostdet.datasets import LoadReadableImage
from ghostdet.datasets.classification import load_image
from ghostdet.errors import UserError
from ghostdet.models.exported_detector import ExportedDetector, is_exported
from ghostdet.utils.components import is_classifier
from ghostdet.utils.files import check_writable
from ghostdet.utils.text import shorten

TOP = 5  # classes of an image
SHOWN = 10  # images whose classes are printed


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
    dataset = DATASETS.build({**cfg.test_dataloader.dataset, "lazy_init": True})
    if is_exported(checkpoint):
        model = ExportedDetector(checkpoint, "bf16" if amp else "fp32")
        model.check(cfg, dataset.metainfo.get("classes"))
        model.cfg = cfg
        model.to(get_device()).eval()
    else:
        model = load_model(cfg, checkpoint)
        if amp:
            use_amp(model)
    model.dataset_meta = {**dataset.metainfo, **model.dataset_meta}
    if "language_model" not in cfg.model:  # whose classes are words
        check_num_classes(model, model.dataset_meta.get("classes"))
    return model


def infer(
    images: str | Path,
    config: str | Path | Config,
    checkpoint: str | Path,
    out: str | Path = "outputs",
    score_thr: float | None = None,
    amp: bool = False,
) -> Path:
    """Detect objects in an image or a folder of images, or classify them.

    A detector writes a picture with boxes for each image, under its own name, and
    ``results.json``, all detections in COCO's results format: ``image_id``,
    ``category_id``, ``bbox`` (x, y, width, height in pixels of the image) and
    ``score``; ``file_name`` and ``category_name`` beside them. Images that the config's
    test annotations list, by their paths, and categories that they name have their
    identifiers. Others are counted from 1, or on from the highest identifier there.

    A classifier writes ``results.json`` alone: for each image ``file_name`` and
    ``predictions``, up to five, the likeliest first, with ``category_id`` (the label,
    from 0), ``category_name`` and ``score``. Where the weights name no classes, as
    official ones do not, names are the labels.

    Args:
        images: An image or a folder.
        config: The config the model was trained with, or for published weights
            their ``.json`` file.
        checkpoint: Its checkpoint, or what a detector was exported to.
        out: Folder to write to.
        score_thr: The lowest score of a detection that is drawn, 0.3 by default; the
            file holds all.
        amp: Mixed precision: with fp16 on a GPU, bf16 on a CPU.

    Returns:
        The path of ``results.json``.

    Raises:
        UserError: If there is no image, ``out`` cannot be written or is the folder of
            the images, the checkpoint does not fit, or, once all others are done, if
            there are images without results.
    """
    paths = _image_paths(Path(images))
    check_writable(out, "--out")
    out = Path(out)
    if out.samefile(paths[0].parent):
        raise UserError(
            f"--out {str(out)!r} holds the images themselves, which what is written "
            "could replace; give another folder"
        )
    cfg = config if isinstance(config, Config) else load_config(config)
    require(cfg, "model", "test_dataloader")
    if score_thr is not None:
        require_detector(cfg, "--score-thr")
    if is_exported(checkpoint):
        require_detector(cfg, "an exported file")
    if is_classifier(cfg):
        model = _Classifier(cfg, checkpoint, amp)
    else:
        model = _Detector(
            cfg, checkpoint, amp, out, 0.3 if score_thr is None else score_thr
        )

    results: list[dict[str, Any]] = []
    failed: list[str] = []
    target = out / "results.json"
    try:
        for number, path in enumerate(tqdm(paths, unit="image"), start=1):
            try:
                results += model.predict(path, number)
            except UserError as error:
                failed.append(error.text)
            except (cv2.error, MemoryError, RuntimeError) as error:  # by its size
                failed.append(f"{path}: {str(error).strip() or 'not enough memory'}")
    finally:  # also of a run that is interrupted
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
        score_thr: float,
    ) -> None:
        self.out, self.score_thr = out, score_thr
        self.model = load_detector(cfg, checkpoint, amp)
        steps = get_test_pipeline_cfg(cfg)
        self.pipeline = Compose(steps)
        self.read = LoadReadableImage(max_value=steps[0].get("max_value", 65535)).read
        self.visualizer = VISUALIZERS.build(
            dict(type="DetLocalVisualizer", name="infer")
        )
        self.visualizer.dataset_meta = self.model.dataset_meta
        self.image_ids, self.category_ids = _coco_ids(cfg)
        self.last_id = _highest(self.image_ids)
        names = self.model.dataset_meta["classes"]
        unknown = [name for name in names if name not in self.category_ids]
        first = _highest(self.category_ids) + 1
        self.category_ids |= {name: i for i, name in enumerate(unknown, first)}

    def predict(self, path: Path, number: int) -> list[dict[str, Any]]:
        """Draw the detections in an image and give all of them."""
        sample = inference_detector(self.model, str(path), self.pipeline)
        self.visualizer.add_datasample(
            path.stem,
            mmcv.bgr2rgb(self.read(str(path))),
            sample,
            draw_gt=False,
            pred_score_thr=self.score_thr,
            out_file=str(self.out / _picture_name(path)),
        )
        classes = self.model.dataset_meta["classes"]
        instances = sample.pred_instances.cpu()
        return [
            dict(
                image_id=self.image_ids.get(realpath(path), self.last_id + number),
                file_name=path.name,
                category_id=self.category_ids[classes[label]],
                category_name=classes[label],
                bbox=[x1, y1, x2 - x1, y2 - y1],
                score=score,
            )
            for (x1, y1, x2, y2), score, label in zip(
                instances.bboxes.tolist(),
                instances.scores.tolist(),
                instances.labels.tolist(),
            )
        ]

    def summary(self, results: list[dict[str, Any]]) -> str:
        """Say what was found."""
        drawn = sum(result["score"] >= self.score_thr for result in results)
        return (
            f"{len(results)} detections, {drawn} of them drawn (score of "
            f"{self.score_thr} or more)\npictures: {self.out}"
        )


class _Classifier:
    """Classifies one image after another."""

    def __init__(self, cfg: Config, checkpoint: str | Path, amp: bool) -> None:
        self.model = load_model(cfg, checkpoint)
        if amp:
            use_amp(self.model)
        self.pipeline = Compose(get_test_pipeline_cfg(cfg))
        self.classes = self.model.dataset_meta.get("classes")

    @torch.no_grad()
    def predict(self, path: Path, number: int) -> list[dict[str, Any]]:
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
        return [dict(file_name=path.name, predictions=predictions)]

    def summary(self, results: list[dict[str, Any]]) -> str:
        """Say what the first ones show."""
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


def _image_paths(images: Path) -> list[Path]:
    """List the images of a folder: those that OpenCV knows by name or content."""
    if images.is_file():
        return [images]
    found = sorted(images.iterdir()) if images.is_dir() else []
    files = filter(Path.is_file, found)  # no pipes and devices, which have no end
    paths = [p for p in files if is_image_file(p.name) or cv2.haveImageReader(str(p))]
    if not paths:
        raise UserError(
            f"no image at {str(images)!r}; give an image or a folder with images; "
            "those in folders of it are not looked for"
        )
    known = set(paths)
    if others := [p.name for p in found if p not in known and not p.is_dir()]:
        print(f"{images}: skipped what is no image: {shorten(others)}")
    return paths


def _picture_name(path: Path) -> str:
    """The image's own name, where OpenCV can write a file of that name."""
    grey = path.suffix.lower() == ".pgm"
    return path.name if is_image_file(path.name) and not grey else f"{path.name}.jpg"


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
