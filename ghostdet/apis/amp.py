"""Inference in mixed precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.runner.amp import autocast
from mmengine.utils import apply_to
from torch import Tensor, nn

from ghostdet.models import ImageClassifier


def use_amp(model: nn.Module) -> None:
    """Make a model predict in mixed precision: fp16 on a GPU, bf16 on a CPU.

    Backbone, neck and heads do; all else is computed in fp32, since a side of 1333 px
    has more pixels than bf16 can count.

    Args:
        model: A detector or a classifier.
    """
    if isinstance(model, ImageClassifier):
        model.backbone.forward = autocast()(model.backbone.forward)
        model.head.forward = _in_fp32(autocast()(model.head.forward))
        return
    model.extract_feat = _in_fp32(autocast()(model.extract_feat))
    for module in model.modules():
        if hasattr(module, "predict_by_feat"):
            module.forward = _in_fp32(autocast()(module.forward))


def _in_fp32(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        return apply_to(function(*args, **kwargs), torch.is_tensor, Tensor.float)

    return run
