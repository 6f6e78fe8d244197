"""An exported detector in the place of the one it was exported from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models import DetDataPreprocessor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import scale_boxes
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor

from ghostdet.errors import ConfigError, UserError
from ghostdet.runtime import PACKAGES, Detector, DetectorError
from ghostdet.utils.components import type_name

# What the pipeline may hold besides Resize, and with what options: the runtime loads as
# these do.
LOADING = ("LoadImageFromFile", "LoadReadableImage", "LoadAnnotations", "PackDetInputs")
READING = dict(color_type="color", to_float32=False, imdecode_backend="cv2")


def resize_of(cfg: Config) -> dict[str, Any] | None:
    """Size and aspect ratio that the test pipeline gives an image.

    Returns:
        ``scale`` (width, height) and ``keep_ratio``, or None if it keeps its size.

    Raises:
        UserError: If the pipeline holds what the runtime does not do.
    """
    resize = None
    for step in get_test_pipeline_cfg(cfg):
        name = type_name(step.type)
        options = {key: value for key, value in step.items() if key != "type"}
        if name == "Resize" and resize is None:
            scale = options.pop("scale", None)
            unscaled = options.pop("scale_factor", None) in (None, 1, 1.0, (1.0, 1.0))
            keep_ratio = options.pop("keep_ratio", False)
            options.pop("clip_object_border", None)
            if (
                unscaled
                and options.pop("interpolation", "bilinear") == "bilinear"
                and options.pop("backend", "cv2") == "cv2"
                and not options
            ):
                if scale is not None:
                    width, height = (scale, scale) if np.isscalar(scale) else scale
                    resize = {"scale": [width, height], "keep_ratio": keep_ratio}
                continue
        elif name in LOADING and all(
            options.get(key, value) == value for key, value in READING.items()
        ):
            continue
        raise UserError(
            f"the test pipeline of {cfg.filename} has {dict(step)}, which an exported "
            f"detector cannot do; what it can is one Resize(scale=(width, height), "
            f"keep_ratio=...), besides {', '.join(LOADING)}"
        )
    return resize


def is_exported(path: str | Path) -> bool:
    """Whether a file is an exported detector, by its suffix, and no checkpoint."""
    return Path(path).suffix in PACKAGES


@MODELS.register_module()
class ExportedDetector(BaseModel):
    """What ``tools/export.py`` wrote, for MMDetection's test loop and inference.

    Images are normalised with the mean and standard deviation that were exported, and
    resized as the config's pipeline says.

    Args:
        path: The ``.onnx`` or ``.xml`` file. It runs on the CPU, on as many threads as
            PyTorch.
        precision: ``fp32``, or ``bf16`` for OpenVINO.

    Attributes:
        dataset_meta: ``classes``, as they were exported.

    Raises:
        UserError: If the file cannot be used.
    """

    def __init__(self, path: str | Path, precision: str = "fp32") -> None:
        try:
            detector = Detector(path, torch.get_num_threads(), precision=precision)
        except DetectorError as error:
            raise UserError(str(error)) from error
        super().__init__(
            DetDataPreprocessor(
                mean=detector.mean, std=detector.std, bgr_to_rgb=detector.to_rgb
            )
        )
        self.path = path
        self.detector = detector
        self.dataset_meta = {"classes": detector.classes}

    def check(self, cfg: Config, classes: Sequence[str] | None) -> None:
        """See that a config and its data set are like those it was exported with.

        Args:
            cfg: The config.
            classes: Those of the data set, or None where it names none.

        Raises:
            UserError: If there are other classes, or in another order, or images get
                another size.
        """
        resize = resize_of(cfg)
        if resize != self.detector.resize:
            raise UserError(
                f"{self.path} is for Resize of {self.detector.resize}, and the test "
                f"pipeline of {cfg.filename} has {resize}; give the config it was "
                "exported with, or export it with this one"
            )
        exported = self.detector.classes
        if classes and tuple(classes) != exported:
            raise UserError(
                f"{self.path} detects {len(exported)} classes, "
                f"{', '.join(exported[:10])}, and the data set has {len(classes)}, "
                f"{', '.join(classes[:10])}; give the config it was exported with, or "
                "set metainfo=dict(classes=...) of the data set"
            )

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[DetDataSample],
        mode: str = "predict",
    ) -> list[DetDataSample]:
        """Detect objects in a batch, image by image.

        Args:
            inputs: float32 (N, 3, H, W), normalised, padded on the right and below.
            data_samples: The N samples, with ``img_shape``, and ``scale_factor`` where
                the images were resized.
            mode: ``'predict'``; there is nothing to train.

        Returns:
            The samples with ``pred_instances``: ``bboxes`` (K, 4) in pixels of the
            image before it was resized, ``scores`` and ``labels`` (K,), on the CPU.

        Raises:
            ConfigError: If ``mode`` is another.
        """
        if mode != "predict":
            raise ConfigError(
                f"an exported detector can only predict, and mode is {mode!r}; train "
                "and differentiate the checkpoint it was exported from"
            )
        for image, sample in zip(inputs.cpu(), data_samples):
            height, width = sample.img_shape[:2]
            image = image[None, :, :height, :width].contiguous()
            outputs = self.detector.infer(image.numpy())
            detected = outputs[1][0] > 0
            boxes, scores, labels = (torch.from_numpy(o[0][detected]) for o in outputs)
            scale = [1 / factor for factor in sample.get("scale_factor", (1, 1))]
            sample.pred_instances = InstanceData(
                bboxes=scale_boxes(boxes, scale), scores=scores, labels=labels
            )
        return data_samples
