"""INT8 by post-training quantisation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdet.export.convert import POSTPROCESSING, to_openvino

if TYPE_CHECKING:
    import onnx


def quantize(
    model: onnx.ModelProto,
    samples: Collection[Any],
    openvino: bool,
    prepare: Callable[[Any], np.ndarray] = np.asarray,
) -> Any:
    """Quantise the network with NNCF and leave the post-processing in float32.

    Args:
        model: Model from :func:`ghostdet.export.convert.detector_to_onnx`.
        samples: Images on which to measure the ranges of activations.
        openvino: Return an ``openvino.Model`` instead of an ONNX model.
        prepare: Turns a sample into the network's input, float32 ``(1, 3, H, W)``.

    Returns:
        An ``openvino.Model`` or an ONNX model.
    """
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf.quantize(
        to_openvino(model) if openvino else model,
        nncf.Dataset(samples, lambda sample: {"image": prepare(sample)}),
        subset_size=len(samples),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(
            patterns=[f"{POSTPROCESSING}.*"],
            validate=False,  # a network without a head has no post-processing
        ),
    )
