"""The whole way from a config and a checkpoint to checked files."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import DATASETS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from torch import Tensor, nn
from tqdm import tqdm

from ghostdet import __version__, runtime
from ghostdet.apis import load_detector
from ghostdet.apis.runner import check_data
from ghostdet.checks import check_dataset
from ghostdet.config import load_config, require, require_detector
from ghostdet.errors import UserError
from ghostdet.export.convert import (
    REQUIRED,
    SUFFIXES,
    detector_to_onnx,
    require_packages,
    save,
)
from ghostdet.export.fuse import fuse_for_inference
from ghostdet.export.graph import DetectionGraph
from ghostdet.export.quantize import quantize
from ghostdet.export.validate import validate
from ghostdet.models.exported_detector import ExportedDetector, is_exported, resize_of
from ghostdet.utils.files import atomic_outputs, check_writable


def export(
    config: str | Path | Config,
    checkpoint: str | Path,
    format: str = "onnx",
    int8: bool = False,
    out: str | Path | None = None,
    calibration_images: int = 100,
) -> Path:
    """Export a detector to files that run without PyTorch, and check them.

    Writes the model (``.onnx``, or ``.xml`` and ``.bin``), ``.json`` with what is
    needed to prepare an image for it, and ``ghostdet_runtime.py``, which does that. The
    model is run against PyTorch on two sizes and a batch before anything is there
    under its final name.

    Args:
        config: The config the detector was trained with.
        checkpoint: Its checkpoint.
        format: ``onnx`` or ``openvino``.
        int8: Quantise the network to 8 bits, calibrated on images of the config's
            training set, and print the AP on its test set before and after.
        out: The file to write. Defaults to the config's name in a folder of
            ``cfg.work_dir`` that is called as the format.
        calibration_images: How many.

    Returns:
        The path of the model.

    Raises:
        UserError: If a package is missing, a part of the detector or of its test
            pipeline cannot be exported, what was exported detects something else, or
            the files cannot be written.
    """
    require_packages(*REQUIRED[format], *(["nncf"] if int8 else []))
    cfg = config if isinstance(config, Config) else load_config(config)
    require(cfg, "model", "test_dataloader")
    require_detector(cfg, "tools/export.py")
    out = _out(cfg, format, int8, out)
    if int8:
        if calibration_images < 1:
            raise UserError(
                f"{calibration_images} images to calibrate on, expected 1 or more"
            )
        require(cfg, "train_dataloader", "test_evaluator")
        for part in ("train", "test"):
            check_data(cfg, part)
    resize = resize_of(cfg)
    if is_exported(checkpoint):
        raise UserError(f"{checkpoint} is exported already; give a checkpoint")
    detector = load_detector(cfg, checkpoint).cpu()
    meta = describe(detector, cfg, resize)
    reference = copy.deepcopy(detector)
    graph = DetectionGraph(fuse_for_inference(detector)).eval()
    preprocessor = detector.data_preprocessor
    print(f"exporting {meta['config']} ...", flush=True)
    model = detector_to_onnx(
        graph, preprocessor.pad_size_divisor, preprocessor.pad_value
    )
    with atomic_outputs(out) as folder:
        path = folder / out.name
        _write(model, path, {**meta, "precision": "fp32"})
        images = list(_validation_images(cfg, reference, resize))
        print(validate(runtime.Detector(path), reference, images), flush=True)
        if int8:
            before = _evaluate(cfg, path)
            if not any("mAP" in key for key in before):
                raise UserError(
                    f"with {checkpoint}, nothing scores above the config's score_thr "
                    "on any image, so what INT8 costs cannot be said; train for "
                    "longer, or leave out --int8"
                )
            images = _calibration_images(cfg, reference, calibration_images)
            print(f"quantising, calibrated on {len(images)} images ...", flush=True)
            quantized = quantize(model, images, format == "openvino")
            _write(quantized, path, {**meta, "precision": "int8"})
            after = _evaluate(cfg, path)
            for key in before:
                if "mAP" in key:
                    print(
                        f"{key}: {before[key]:.3f} in fp32, {after.get(key, 0):.3f} in "
                        "INT8"
                    )
            if any(before[key] - after.get(key, 0) > 0.01 for key in before):
                print("WARNING: INT8 costs more than 0.01 of a metric")
        shutil.copy(runtime.__file__, folder / "ghostdet_runtime.py")
    print(f"written: {out}")
    return out


def describe(
    detector: nn.Module, cfg: Config, resize: dict[str, Any] | None
) -> dict[str, Any]:
    """What is to be known to use the model, as it stands in the ``.json`` file."""
    preprocessor = detector.data_preprocessor
    normalized = preprocessor._enable_normalize

    def numbers(name: str, default: float) -> list[float]:
        if not normalized:
            return [default] * 3
        return [float(str(value)) for value in getattr(preprocessor, name).numpy().flat]

    return {
        "format_version": runtime.FORMAT_VERSION,
        "ghostdet": __version__,
        "config": Path(cfg.filename).stem if cfg.filename else "",
        "classes": list(detector.dataset_meta["classes"]),
        "resize": resize,
        "mean": numbers("mean", 0.0),
        "std": numbers("std", 1.0),
        "to_rgb": preprocessor._channel_conversion,
    }


def _out(cfg: Config, format: str, int8: bool, out: str | Path | None) -> Path:
    suffix = SUFFIXES[format]
    if out is None:
        folder = f"{format}_int8" if int8 else format
        return Path(cfg.work_dir, folder, Path(cfg.filename).stem + suffix)
    out = Path(out)
    if out.suffix != suffix:
        raise UserError(
            f"--out is {str(out)!r}, expected a file that ends in {suffix} for "
            f"--format {format}"
        )
    for other in set(SUFFIXES.values()) - {suffix}:
        if out.with_suffix(other).exists():
            raise UserError(
                f"{out.with_suffix(other)} is there, and its .json file would be "
                "overwritten; give another name with --out"
            )
    described = out.with_suffix(".json")
    if out.is_dir() or (
        described.exists() and "format_version" not in described.read_text()[:1000]
    ):
        raise UserError(
            f"{out if out.is_dir() else described} is there and was not exported; give "
            "another name with --out"
        )
    check_writable(out.parent, "--out")
    return out


def _write(model: Any, path: Path, meta: dict[str, Any]) -> None:
    save(model, path)
    meta["sha256"] = runtime.checksum(path)
    path.with_suffix(".json").write_text(
        json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _evaluate(cfg: Config, path: Path) -> dict[str, float]:
    """Metrics of the config's evaluator on its test set.

    Not by :func:`ghostdet.apis.test`, whose Runner is once for a process.
    """
    detector = ExportedDetector(path)
    loader = Runner.build_dataloader(cfg.test_dataloader)
    evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    for batch in tqdm(loader, desc="evaluating", unit="batch"):
        evaluator.process(detector.test_step(batch), batch)
    return evaluator.evaluate(len(loader.dataset))


def _validation_images(
    cfg: Config, detector: nn.Module, resize: dict[str, Any] | None
) -> Iterator[Tensor]:
    """One image as it is and two in a batch, smaller, on their side, of odd sides."""
    try:
        check_dataset(cfg.test_dataloader.dataset)
    except UserError as error:
        print(f"comparing on clouds, since there is no test image: {error.text}")
        width, height = resize["scale"] if resize else (416, 320)
        clouds = torch.randn(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))
        images = [
            F.interpolate(cloud[None], (height, width), mode="bicubic")
            for cloud in clouds
        ]
    else:
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        images = [_prepared(dataset[i], detector) for i in (0, len(dataset) // 2)]
    yield images[0]
    width, height = (side * 2 // 3 | 1 for side in images[0].shape[-2:])
    yield torch.cat(
        [F.interpolate(x, (height, width), mode="bilinear") for x in images]
    )


def _calibration_images(cfg: Config, detector: nn.Module, count: int) -> _Prepared:
    """Images all over the training set, prepared as for a test."""
    pipeline = get_test_pipeline_cfg(cfg)

    def tested(node: Any) -> Any:
        if isinstance(node, dict):
            if node.get("type") == "MultiImageMixDataset":  # with transforms of its own
                return tested(node["dataset"])
            return {
                key: pipeline if key == "pipeline" else tested(value)
                for key, value in node.items()
            }
        return [tested(value) for value in node] if isinstance(node, list) else node

    dataset = DATASETS.build(tested(cfg.train_dataloader.dataset.to_dict()))
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)
    return _Prepared(dataset, chosen.tolist(), detector)


class _Prepared:
    """Images that are read when they are asked for."""

    def __init__(self, dataset: Any, chosen: list[int], detector: nn.Module) -> None:
        self.dataset = dataset
        self.chosen = chosen
        self.detector = detector

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[np.ndarray]:
        for index in self.chosen:
            yield _prepared(self.dataset[index], self.detector).numpy()


def _prepared(sample: dict[str, Any], detector: nn.Module) -> Tensor:
    """A sample as the detector's input, float32 ``(1, 3, H, W)``, less the padding."""
    batch = {key: [value] for key, value in sample.items()}
    height, width = sample["inputs"].shape[-2:]
    return detector.data_preprocessor(batch, False)["inputs"][..., :height, :width]
