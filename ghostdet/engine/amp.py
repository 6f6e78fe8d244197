"""Inference in mixed precision."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.runner.amp import autocast
from torch import nn


def use_amp(model: nn.Module) -> None:
    """Make a detector predict in mixed precision: fp16 on a GPU, bf16 on a CPU.

    Its predictions are given in fp32: COCO's evaluation and the visualizer make arrays
    of NumPy from them, which has no bf16.

    Args:
        model: A detector. What it computes in other modes is left alone.
    """
    predict = model.predict

    def predict_with_amp(*args: Any, **kwargs: Any) -> Any:
        with autocast():
            samples = predict(*args, **kwargs)
        for sample in samples:
            for name, value in sample.pred_instances.items():
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    sample.pred_instances.set_field(value.float(), name)
        return samples

    model.predict = predict_with_amp
