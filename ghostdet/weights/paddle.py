"""Weights of PaddleClas under the official names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ghostdet.errors import UserError
from ghostdet.models.backbones.ghostnet import BLOCKS

# Where official names have a bottleneck: the flat number of PaddleClas, from 0.
_BOTTLENECKS = [
    f"blocks.{stage}.{index}"
    for stage, rows in enumerate(BLOCKS)
    for index in range(len(rows))
]


# PaddleClas's names inside a bottleneck and beside it (ghostnet.py of its model zoo);
# `conv` is followed by `_conv` and `_batch_norm`, for which official names differ.
_PADDLE_BOTTLENECK = {
    "ghost_module_1.primary_conv": "ghost1.primary_conv.{0,1}",
    "ghost_module_1.cheap_operation": "ghost1.cheap_operation.{0,1}",
    "ghost_module_2.primary_conv": "ghost2.primary_conv.{0,1}",
    "ghost_module_2.cheap_operation": "ghost2.cheap_operation.{0,1}",
    "depthwise_conv": "{conv_dw,bn_dw}",
    "shortcut_depthwise": "shortcut.{0,1}",
    "shortcut_conv": "shortcut.{2,3}",
    "se_block.squeeze": "se.conv_reduce",
    "se_block.excitation": "se.conv_expand",
}


_PADDLE_OTHERS = {"conv1": "{conv_stem,bn1}", "conv_last": "blocks.9.0.{conv,bn1}"}


_PADDLE_CLASSIFIER = ("fc_0.", "fc_1.")


_PADDLE_NAMES = "StructuredToParameterName@@"  # a dictionary that paddle.save adds


_PADDLE_NORM = {"_mean": "running_mean", "_variance": "running_var"}


def _from_paddle(state_dict: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Names of PaddleClas to official ones; its classifier is of another form."""
    rules = {
        **_PADDLE_OTHERS,
        **{
            f"_ghostbottleneck_{number}.{theirs}": f"{ours}.{name}"
            for number, ours in enumerate(_BOTTLENECKS)
            for theirs, name in _PADDLE_BOTTLENECK.items()
        },
    }
    converted, unknown = {}, []
    for name, value in state_dict.items():
        if name.startswith(_PADDLE_CLASSIFIER) or name == _PADDLE_NAMES:
            continue
        match = re.fullmatch(r"(.+?)(?:\.(_conv|_batch_norm))?\.(\w+)", name)
        ours = rules.get(match[1]) if match else None
        if ours is None or not isinstance(value, (np.ndarray, Tensor)):
            unknown.append(name)
            continue
        layer, kind = match[2], _PADDLE_NORM.get(match[3], match[3])
        before, brace, pair = ours.partition("{")
        if brace:
            conv, norm = pair.rstrip("}").split(",")
            ours = before + (conv if layer == "_conv" else norm)
        tensor = torch.as_tensor(value)
        if not brace and tensor.dim() == 2:  # SE's linear layers, transposed
            tensor = tensor.t()[:, :, None, None].contiguous()
        converted[f"{ours}.{kind}"] = tensor
    if unknown:
        raise UserError(
            f"{source} has the names of PaddleClas's GhostNet and others: "
            f"{', '.join(unknown[:5])}; give the file of a GhostNet as PaddleClas "
            "publishes it"
        )
    return converted
