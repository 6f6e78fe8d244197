"""Export a detector, from a config and a checkpoint to verified files."""

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
from torch.utils.data import ConcatDataset, Subset
from tqdm import tqdm

from ghostdet import __version__, runtime
from ghostdet.apis import load_detector
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
from ghostdet.models.exported_detector import ExportedDetector, is_exported
from ghostdet.utils.components import iter_datasets, resize_of
from ghostdet.utils.files import atomic_outputs, check_writable


def export(
    config: str | Path | Config,
    checkpoint: str | Path,
    format: str = "onnx",
    int8: bool = False,
    out: str | Path | None = None,
    calibration_images: int = 100,
) -> Path:
    """Export a detector to files that run without PyTorch, and verify them.

    Write the model (``.onnx``, or ``.xml`` and ``.bin``), a ``.json`` file that says
    how to prepare images, and ``ghostdet_runtime.py``, which runs the model. The files
    get their final names after the model has been compared with PyTorch.

    Args:
        config: Config the detector was trained with.
        checkpoint: Checkpoint of the detector.
        format: ``onnx`` or ``openvino``.
        int8: Quantise the network to 8 bits, calibrate it on images of the config's
            training set, and print the AP on the test set before and after.
        out: File to write. Defaults to the config's name in the folder
            ``cfg.work_dir/format``.
        calibration_images: Number of images to calibrate on.

    Returns:
        The path of the model.

    Raises:
        UserError: If a package is missing, a part of the detector or of its test
            pipeline cannot be exported, the results differ from PyTorch's, or the
            files cannot be written.
    """
    require_packages(*REQUIRED[format], *(["nncf"] if int8 else []))
    cfg = config if isinstance(config, Config) else load_config(config)
    require(cfg, "model", "test_dataloader")
    require_detector(cfg, "tools/export.py")
    if out is None:
        folder = f"{format}_int8" if int8 else format
        out = Path(cfg.work_dir, folder, Path(cfg.filename).stem + SUFFIXES[format])
    out = Path(out)
    _check_out(out, format)
    if int8:
        if calibration_images < 1:
            raise UserError(
                f"--calibration-images is {calibration_images}, expected 1 or more"
            )
        require(cfg, "train_dataloader", "test_evaluator")
        for part in ("train", "test"):
            check_dataset(cfg[f"{part}_dataloader"].dataset)
    resize = resize_of(cfg)
    if is_exported(checkpoint):
        raise UserError(f"{checkpoint} is exported already; give a checkpoint")
    print(f"loading {checkpoint} ...", flush=True)
    detector = load_detector(cfg, checkpoint).cpu()
    meta = _describe(detector, cfg, resize)
    reference = copy.deepcopy(detector)
    graph = DetectionGraph(fuse_for_inference(detector)).eval()
    preprocessor = detector.data_preprocessor
    print(f"converting {meta['config']}, which takes a minute ...", flush=True)
    model = detector_to_onnx(
        graph, preprocessor.pad_size_divisor, preprocessor.pad_value
    )
    with atomic_outputs(out) as folder:
        path = folder / out.name
        _write(model, path, {**meta, "precision": "fp32"})
        print("comparing with PyTorch ...", flush=True)
        images = _validation_images(cfg, reference, resize)
        print(validate(runtime.Detector(path), reference, images), flush=True)
        if int8:
            before = _evaluate(cfg, path)
            if not any("mAP" in key for key in before):
                raise UserError(
                    f"with {checkpoint}, no detection reaches the config's score_thr "
                    "on any test image, so the cost of INT8 cannot be measured; train "
                    "for longer, or leave out --int8"
                )
            samples = _calibration_samples(cfg, calibration_images)
            print(f"quantising, calibrated on {len(samples)} images ...", flush=True)

            def prepare(sample: dict[str, Any]) -> np.ndarray:
                return _prepare(sample, reference).numpy()

            quantized = quantize(model, samples, format == "openvino", prepare)
            _write(quantized, path, {**meta, "precision": "int8"})
            _compare_metrics(before, _evaluate(cfg, path))
        shutil.copy(runtime.__file__, folder / "ghostdet_runtime.py")
        files = ", ".join(sorted(file.name for file in folder.iterdir()))
    print(
        f"written to {out.parent}: {files}\nThey run without MMDetection and PyTorch:\n"
        f"  pip install numpy opencv-python-headless {runtime.PACKAGES[out.suffix]}\n"
        f"  python {out.parent / 'ghostdet_runtime.py'} {out} IMAGE..."
    )
    return out


def _check_out(out: Path, format: str) -> None:
    """Check the suffix, and that no other export or file would be overwritten."""
    suffix = SUFFIXES[format]
    if out.suffix != suffix:
        raise UserError(
            f"--out is {str(out)!r}, expected a file that ends in {suffix} for "
            f"--format {format}"
        )
    for other in set(SUFFIXES.values()) - {suffix}:
        if out.with_suffix(other).exists():
            raise UserError(
                f"{out.with_suffix(other)} exists, and its .json file would be "
                "overwritten; give another name with --out"
            )
    meta = out.with_suffix(".json")
    if meta.exists() and b"format_version" not in meta.read_bytes()[:1000]:
        raise UserError(
            f"{meta} exists and does not belong to an export; give another name with "
            "--out"
        )
    check_writable(out.parent, "--out")


def _describe(
    detector: nn.Module, cfg: Config, resize: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the content of the ``.json`` file."""
    preprocessor = detector.data_preprocessor
    mean, std = [0.0] * 3, [1.0] * 3
    if preprocessor._enable_normalize:
        numbers = preprocessor.mean, preprocessor.std  # 0.1, not 0.10000000149
        mean, std = ([float(str(value)) for value in n.numpy().flat] for n in numbers)
    return {
        "format_version": runtime.FORMAT_VERSION,
        "ghostdet": __version__,
        "config": Path(cfg.filename).stem if cfg.filename else "",
        "classes": list(detector.dataset_meta["classes"]),
        "resize": resize,
        "mean": mean,
        "std": std,
        "to_rgb": preprocessor._channel_conversion,
    }


def _write(model: Any, path: Path, meta: dict[str, Any]) -> None:
    save(model, path)
    meta["sha256"] = runtime.checksum(path, meta)
    path.with_suffix(".json").write_text(
        json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _evaluate(cfg: Config, path: Path) -> dict[str, float]:
    """Return the metrics of an exported detector on the config's test set.

    :func:`ghostdet.apis.test` builds a Runner, and a process can build only one.
    """
    detector = ExportedDetector(path)
    loader = Runner.build_dataloader(cfg.test_dataloader)
    detector.check(cfg, loader.dataset.metainfo.get("classes"))
    evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    for batch in tqdm(loader, desc="evaluating", unit="batch"):
        evaluator.process(detector.test_step(batch), batch)
    return evaluator.evaluate(len(loader.dataset))


def _compare_metrics(before: dict[str, float], after: dict[str, float]) -> None:
    for key, value in before.items():
        if "mAP" in key:
            other = after.get(key, 0)
            warning = " WARNING: INT8 costs more than 0.01" * (value - other > 0.01)
            print(f"{key}: {value:.3f} in fp32, {other:.3f} in INT8{warning}")


def _validation_images(
    cfg: Config, detector: nn.Module, resize: dict[str, Any] | None
) -> Iterator[Tensor]:
    """Yield one image, then two in a batch: smaller, with odd sides, transposed."""
    try:
        check_dataset(cfg.test_dataloader.dataset)
    except UserError as error:
        print(f"no test image, comparing on random clouds: {error.text}")
        size = resize["scale"][::-1] if resize else (320, 416)
        generator = torch.Generator().manual_seed(0)
        clouds = torch.randn(2, 3, 12, 16, generator=generator)
        images = F.interpolate(clouds, size, mode="bicubic").split(1)
    else:
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        images = [_prepare(dataset[i], detector) for i in (0, len(dataset) // 2)]
    yield images[0]
    width, height = (side * 2 // 3 | 1 for side in images[0].shape[-2:])
    yield torch.cat(
        [F.interpolate(x, (height, width), mode="bilinear") for x in images]
    )


def _calibration_samples(cfg: Config, count: int) -> Subset:
    """Return evenly spread samples of the training set, with the test pipeline."""
    pipeline = get_test_pipeline_cfg(cfg)
    parts = iter_datasets(cfg.train_dataloader.dataset)
    dataset = ConcatDataset(
        [DATASETS.build({**part, "pipeline": pipeline}) for _, part in parts]
    )
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)
    return Subset(dataset, chosen.tolist())


def _prepare(sample: dict[str, Any], detector: nn.Module) -> Tensor:
    """Turn a sample into the detector's input ``(1, 3, H, W)``, without padding."""
    batch = {key: [value] for key, value in sample.items()}
    height, width = sample["inputs"].shape[-2:]
    return detector.data_preprocessor(batch, False)["inputs"][..., :height, :width]
