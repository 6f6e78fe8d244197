"""An exported detector as a model of MMDetection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from mmdet.models import DetDataPreprocessor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import scale_boxes
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor

from ghostdet.errors import ConfigError, UserError
from ghostdet.runtime import PACKAGES, Detector, DetectorError
from ghostdet.utils.components import resize_of
from ghostdet.utils.text import shorten


def is_exported(path: str | Path) -> bool:
    """Tell an exported detector from a checkpoint, by the suffix of its file."""
    return Path(path).suffix in PACKAGES


@MODELS.register_module()
class ExportedDetector(BaseModel):
    """A file written by ``tools/export.py``, for MMDetection's test loop and inference.

    Images are normalised with the exported mean and standard deviation, and resized by
    the config's pipeline.

    Args:
        path: The ``.onnx`` or ``.xml`` file. It runs on the CPU with as many threads as
            PyTorch.
        precision: ``fp32``, or ``bf16`` for OpenVINO.

    Attributes:
        dataset_meta: ``classes`` at the time of export.

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
        """Check that the export has this config's image size and these classes.

        Raises:
            UserError: If the classes, their order or the size of images differ.
        """
        resize = resize_of(cfg)
        if resize != self.detector.resize:
            raise UserError(
                f"{self.path} was exported with Resize of {self.detector.resize}, and "
                f"the test pipeline of {cfg.filename} has {resize}; give the config it "
                "was exported with, or export it with this one"
            )
        exported = self.detector.classes
        if classes and tuple(classes) != exported:
            raise UserError(
                f"{self.path} detects {len(exported)} classes, {shorten(exported)}, "
                f"and the dataset has {len(classes)}, {shorten(classes)}; give the "
                "config it was exported with, or set metainfo=dict(classes=...) of the "
                "dataset"
            )

    def forward(
        self, inputs: Tensor, data_samples: list[DetDataSample], mode: str = "predict"
    ) -> list[DetDataSample]:
        """Detect objects in a batch, image by image.

        Args:
            inputs: float32 (N, 3, H, W), normalised, padded on the right and below.
            data_samples: The N samples, with ``img_shape``, and with ``scale_factor``
                if the images were resized.
            mode: Only ``'predict'``.

        Returns:
            The samples with ``pred_instances`` on the CPU: ``bboxes`` (K, 4) in pixels
            of the image before it was resized, ``scores`` and ``labels`` (K,).

        Raises:
            ConfigError: If ``mode`` is another.
        """
        if mode != "predict":
            raise ConfigError(
                f"mode is {mode!r}, but an exported detector can only predict; train "
                "the checkpoint it was exported from"
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
