"""INT8 by post-training quantisation."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdet.export.convert import POSTPROCESSING, to_openvino

if TYPE_CHECKING:
    import onnx


def quantize(
    model: onnx.ModelProto, images: Collection[np.ndarray], openvino: bool
) -> Any:
    """Quantise the network with NNCF, and leave the post-processing as it is.

    Args:
        model: From :func:`ghostdet.export.convert.detector_to_onnx`.
        images: What the ranges of activations are measured on: float32
            ``(1, 3, H, W)``, normalised.
        openvino: Whether for OpenVINO, or else for ONNX Runtime.

    Returns:
        An ``openvino.Model``, or an ONNX model.
    """
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf.quantize(
        to_openvino(model) if openvino else model,
        nncf.Dataset(images, lambda image: {"image": image}),
        subset_size=len(images),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(
            patterns=[f"{POSTPROCESSING}.*"],
            validate=False,  # a network alone has none
        ),
    )
