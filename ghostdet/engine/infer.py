"""Detection in pictures of the user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import mmcv
from mmcv.transforms import Compose
from mmdet.apis import inference_detector
from mmdet.registry import DATASETS, VISUALIZERS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from torch import nn
from tqdm import tqdm

from ghostdet.errors import UserError
from ghostdet.export.exported import ExportedDetector, is_exported

from .amp import use_amp
from .config import (
    check_num_classes,
    check_writable,
    load_config,
    require,
    require_detector,
)
from .model import load_model

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


def load_detector(
    config: str | Path | Config, checkpoint: str | Path, amp: bool = False
) -> nn.Module:
    """Build a detector and fill it with trained weights, all of them.

    Args:
        config: The config it was trained with, or for published weights their
            ``.json`` file.
        checkpoint: Its checkpoint, or what it was exported to, ``.onnx`` or ``.xml``.
        amp: Mixed precision, see :func:`~ghostdet.engine.amp.use_amp`.

    Returns:
        The detector in evaluation mode, on the GPU if there is one, as MMDetection's
        ``init_detector`` returns it: for ``inference_detector``. An exported one is an
        :class:`~ghostdet.export.ExportedDetector`.

    Raises:
        UserError: If a file is missing, the weights or classes do not fit, or it is no
            detector.
    """
    cfg = config if isinstance(config, Config) else load_config(config)
    require(cfg, "model", "test_dataloader")
    require_detector(cfg)
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
    score_thr: float = 0.3,
    amp: bool = False,
) -> Path:
    """Detect objects in an image or a folder of images.

    Writes a picture with boxes for each image, under its own name, and
    ``results.json``, all detections in COCO's results format: ``image_id``,
    ``category_id``, ``bbox`` (x, y, width, height in pixels of the image) and
    ``score``; ``file_name`` and ``category_name`` beside them. The identifiers are
    those of the config's test annotations where these are there and name the image;
    otherwise categories count from 1 in the order of the classes, and images from 1, or
    from the highest identifier there, in the order of their names.

    Args:
        images: An image or a folder.
        config: The config the detector was trained with, or for published weights
            their ``.json`` file.
        checkpoint: Its checkpoint, or what it was exported to.
        out: Folder to write to.
        score_thr: The lowest score that is drawn; the file holds all.
        amp: Mixed precision: with fp16 on a GPU, bf16 on a CPU.

    Returns:
        The path of ``results.json``.

    Raises:
        UserError: If there is no image, ``out`` cannot be written or is the folder of
            the images, the checkpoint does not fit, or, once all others are done, if
            images could not be read.
    """
    paths = _image_paths(Path(images))
    check_writable(out, "--out")
    out = Path(out)
    if out.samefile(paths[0].parent):
        raise UserError(
            f"--out {str(out)!r} holds the images themselves, which the pictures would "
            "overwrite; give another folder"
        )
    cfg = config if isinstance(config, Config) else load_config(config)
    model = load_detector(cfg, checkpoint, amp)
    pipeline = Compose(get_test_pipeline_cfg(cfg))
    visualizer = VISUALIZERS.build(dict(type="DetLocalVisualizer", name="infer"))
    visualizer.dataset_meta = model.dataset_meta
    classes = model.dataset_meta["classes"]
    image_ids, category_ids = _coco_ids(cfg)
    # Images that the annotations do not name are numbered behind those that they do.
    last_id = max((i for i in image_ids.values() if isinstance(i, int)), default=0)

    results: list[dict[str, Any]] = []
    unreadable: list[str] = []
    for number, path in enumerate(tqdm(paths, unit="image"), start=1):
        try:
            sample = inference_detector(model, str(path), pipeline)
        except UserError as error:
            unreadable.append(error.text)
            continue
        except cv2.error as error:
            unreadable.append(f"{path} cannot be resized: {error.err}")
            continue
        picture = mmcv.imread(str(path), channel_order="rgb")
        visualizer.add_datasample(
            path.stem,
            picture,
            sample,
            draw_gt=False,
            pred_score_thr=score_thr,
            out_file=str(out / _picture_name(path)),
        )
        instances = sample.pred_instances.cpu()
        for box, score, label in zip(
            instances.bboxes.tolist(),
            instances.scores.tolist(),
            instances.labels.tolist(),
        ):
            x1, y1, x2, y2 = box
            results.append(
                dict(
                    image_id=image_ids.get(path.name, last_id + number),
                    file_name=path.name,
                    category_id=category_ids.get(classes[label], label + 1),
                    category_name=classes[label],
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    score=score,
                )
            )
    target = out / "results.json"
    target.write_text(json.dumps(results, indent=1))
    print(
        f"{len(paths) - len(unreadable)} image(s), {len(results)} detections, "
        f"{sum(r['score'] >= score_thr for r in results)} of them drawn "
        f"(score of {score_thr} or more)\npictures: {out}\nCOCO results: {target}"
    )
    if unreadable:
        raise UserError("\n".join(["not all images could be read", *unreadable]))
    return target


def _image_paths(images: Path) -> list[Path]:
    if images.is_file():
        return [images]
    paths = (
        sorted(p for p in images.iterdir() if _is_image(p) and p.is_file())
        if images.is_dir()
        else []
    )
    if not paths:
        raise UserError(
            f"no image at {str(images)!r}; give an image or a folder with images "
            f"({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    return paths


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _picture_name(path: Path) -> str:
    """The image's own name, where OpenCV can write a file of that name."""
    return path.name if _is_image(path) else f"{path.name}.jpg"


def _coco_ids(cfg: Config) -> tuple[dict[str, int], dict[str, int]]:
    """Identifiers of images by file name and of categories by name, if known."""
    dataset = cfg.test_dataloader.dataset
    file = Path(dataset.get("data_root") or "", dataset.get("ann_file") or "")
    if file.suffix != ".json" or not file.is_file():
        return {}, {}
    annotations = json.loads(file.read_text())
    return (
        {
            Path(i.get("file_name") or i.get("coco_url", "")).name: i["id"]
            for i in annotations["images"]
        },
        {c["name"]: c["id"] for c in annotations["categories"]},
    )
