"""The formats that GhostNet weights are published in, brought to the official one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ghostdet.errors import UserError
from ghostdet.models.ghostnet import BLOCKS

from .fitting import weights_of
from .reading import read_source
from .source import sha256

CLASSIFIER = ("conv_head.", "classifier.")  # behind the backbone, in the official names
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
_PADDLE_NORM = {"_mean": "running_mean", "_variance": "running_var"}


@dataclass
class Weights:
    """GhostNet weights under the official names, and where they are from.

    Attributes:
        state_dict: Backbone and, if the file has them, classifier.
        source: What was asked for.
        sha256: Checksum of the file.
        format: ``'official'`` (also timm's), ``'PaddleClas'`` or ``'detector'``.
        network: ``'GhostNet'``, ``'GhostNetV2'`` or ``'GhostNetV3'``.
        widen_factor: The width, from the channels of the widest bottleneck.
        se_gate: The gate that the weights were trained with; None if the file cannot
            tell.
    """

    state_dict: dict[str, Tensor]
    source: str
    sha256: str
    format: str
    network: str
    widen_factor: float
    se_gate: str | None

    @property
    def backbone(self) -> dict[str, Tensor]:
        """The weights without those of a classifier."""
        return {
            name: value
            for name, value in self.state_dict.items()
            if not name.startswith(CLASSIFIER)
        }

    def __str__(self) -> str:
        return f"{self.network} {self.widen_factor:g}x from {self.source}"


def read_weights(checkpoint: str | Path) -> Weights:
    """Read GhostNet weights of any format.

    Args:
        checkpoint: What :func:`~ghostdet.weights.fetch` takes; a file of
            ``torch.save``, safetensors or PaddlePaddle with weights of the official
            network, timm's, PaddleClas's, or a detector of this package's.

    Returns:
        The weights under the official names.

    Raises:
        UserError: If the file cannot be had or read, or is of another network.
    """
    path, content = read_source(checkpoint)
    source = str(checkpoint)
    if not isinstance(content, dict):
        raise UserError(
            f"{source} holds no state dict but a {type(content).__name__}; give a file "
            "of weights"
        )
    metadata = content.get("metadata") if path.suffix == ".safetensors" else None
    state_dict = weights_of(content)
    se_gate = (metadata or {}).get("se_gate")
    if any(name.startswith("_ghostbottleneck_") for name in state_dict):
        kind, se_gate = "PaddleClas", "clip"
        state_dict = _from_paddle(state_dict, source)
    elif any(name.startswith("backbone.") for name in state_dict):
        kind = "detector"
        state_dict = {
            name.removeprefix("backbone."): value
            for name, value in state_dict.items()
            if name.startswith("backbone.")
        }
    else:
        kind, se_gate = "official", se_gate or "hard_sigmoid"
        state_dict = _from_official(state_dict)
    _refuse_others(state_dict, source)
    return Weights(
        state_dict,
        source,
        sha256(path),
        kind,
        _network_of(state_dict),
        _width_of(state_dict),
        se_gate,
    )


def _from_official(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Official V3's norms are called ``bn``, and a profiler left totals in its file."""
    return {
        re.sub(r"(_rpr_\w+(?:\.\d)?)\.bn\.", r"\1.bn1.", name): value
        for name, value in state_dict.items()
        if not name.endswith(("total_ops", "total_params"))
    }


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
        if name.startswith(_PADDLE_CLASSIFIER) or not isinstance(
            value, (np.ndarray, Tensor)
        ):
            continue  # paddle.save adds a dictionary of names
        match = re.fullmatch(r"(.+?)(?:\.(_conv|_batch_norm))?\.(\w+)", name)
        ours = rules.get(match[1]) if match else None
        if ours is None:
            unknown.append(name)
            continue
        layer, kind = match[2], _PADDLE_NORM.get(match[3], match[3])
        before, brace, pair = ours.partition("{")
        if brace:
            conv, norm = pair.rstrip("}").split(",")
            ours = before + (conv if layer == "_conv" else norm)
        tensor = torch.as_tensor(value)
        if not brace and kind == "weight":  # SE's linear layers, transposed
            tensor = tensor.t()[:, :, None, None].contiguous()
        converted[f"{ours}.{kind}"] = tensor
    if unknown:
        raise UserError(
            f"{source} has the names of PaddleClas's GhostNet and others: "
            f"{', '.join(unknown[:5])}; give the file of a GhostNet as PaddleClas "
            "publishes it"
        )
    return converted


def _refuse_others(state_dict: Mapping[str, Any], source: str) -> None:
    if "conv_stem.weight" in state_dict:
        return
    if any(re.match(r"features\.\d+\.conv\.\d+\.primary_conv", n) for n in state_dict):
        raise UserError(
            f"{source} is of d-li14's GhostNet, another network: its shortcuts have a "
            "3x3 depthwise convolution with ReLU whatever the kernel of the block, and "
            "its SE gate is clip(x, 0, 1); give weights of the official network, "
            "timm's or PaddleClas's"
        )
    found = ", ".join(map(str, list(state_dict)[:3])) or "nothing"
    raise UserError(
        f"{source} is of another architecture, or not of a GhostNet alone: it begins "
        f"with {found}; expected names such as conv_stem.weight and "
        "blocks.0.0.ghost1.primary_conv.0.weight, bare or behind backbone."
    )


def _network_of(state_dict: Mapping[str, Any]) -> str:
    if any("_rpr_" in name for name in state_dict):
        return "GhostNetV3"
    return "GhostNetV2" if any(".short_conv." in n for n in state_dict) else "GhostNet"


def _width_of(state_dict: Mapping[str, Any]) -> float:
    """The width: channels of the widest bottleneck there is, over those at 1.0."""
    widest = (0, 0.0)
    for name, row in zip(_BOTTLENECKS, (row for rows in BLOCKS for row in rows)):
        for conv in ("primary_conv.0.weight", "primary_rpr_conv.0.conv.weight"):
            weight = state_dict.get(f"{name}.ghost1.{conv}")
            if isinstance(weight, Tensor):
                # Half of the channels are intrinsic.
                widest = max(widest, (row.exp, round(2 * len(weight) / row.exp, 3)))
    return widest[1]
