"""Read GhostNet weights of any published format under the official names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ghostdet.errors import UserError
from ghostdet.models.backbones.ghostnet import BLOCKS
from ghostdet.utils.files import sha256
from ghostdet.weights.checkpoint import read_source
from ghostdet.weights.paddle import BOTTLENECKS, from_paddle
from ghostdet.weights.state_dict import get_state_dict

# Official names of the layers after the backbone.
CLASSIFIER = {
    f"{layer}.{kind}"
    for layer in ("conv_head", "classifier")
    for kind in ("weight", "bias")
}
_HEAD = "head."  # their prefix in a classifier that was trained here


@dataclass
class Weights:
    """GhostNet weights under the official names, and their origin.

    Attributes:
        state_dict: Backbone and, if the file has one, classifier.
        source: Path or address of the file.
        sha256: Checksum of the file.
        format: ``'official'`` (also timm's), ``'PaddleClas'``, or, if trained here,
            ``'classifier'`` or ``'detector'``.
        network: ``'GhostNet'``, ``'GhostNetV2'`` or ``'GhostNetV3'``.
        widen_factor: The width, from the channels of the widest bottleneck.
        se_gate: The gate that the weights were trained with; None if unknown.
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
        """The weights without the classifier's."""
        return {n: v for n, v in self.state_dict.items() if n not in CLASSIFIER}

    def __str__(self) -> str:
        return f"{self.network} {self.widen_factor:g}x from {self.source}"


def read_weights(checkpoint: str | Path) -> Weights:
    """Read GhostNet weights of any format.

    Args:
        checkpoint: See :func:`~ghostdet.weights.fetch`. A file of ``torch.save``,
            safetensors or PaddlePaddle with weights of the official network, timm's,
            PaddleClas's, or of a model that was trained here.

    Returns:
        The weights under the official names.

    Raises:
        UserError: If the file cannot be fetched or read, or holds another network.
    """
    path, content = read_source(checkpoint)
    source = str(checkpoint)
    state_dict = get_state_dict(content)
    metadata = content.get("metadata", {}) if path.suffix == ".safetensors" else {}
    se_gate = metadata.get("se_gate")
    if any(name.startswith("_ghostbottleneck_") for name in state_dict):
        kind, se_gate = "PaddleClas", "clip"
        state_dict = from_paddle(state_dict, source)
    elif any(name.startswith("backbone.") for name in state_dict):
        kind = "classifier" if _HEAD + "classifier.weight" in state_dict else "detector"
        se_gate = se_gate or _gate_of_config(content)
        head = {n.removeprefix(_HEAD): v for n, v in state_dict.items()}
        state_dict = backbone_of(state_dict)
        state_dict |= {name: head[name] for name in CLASSIFIER & head.keys()}
    else:
        kind, se_gate = "official", se_gate or "hard_sigmoid"
        # Official V3 calls its norms `bn`, and a profiler left totals in its file.
        state_dict = {
            re.sub(r"(_rpr_\w+(?:\.\d)?)\.bn\.", r"\1.bn1.", name): value
            for name, value in state_dict.items()
            if not name.endswith(("total_ops", "total_params"))
        }
    _check_architecture(state_dict, source)
    _check_tensors(state_dict, source)
    network = "GhostNet"
    if any("_rpr_" in name for name in state_dict):
        network = "GhostNetV3"
    elif any(".short_conv." in name for name in state_dict):
        network = "GhostNetV2"
    return Weights(
        state_dict,
        source,
        sha256(path),
        kind,
        network,
        _width_of(state_dict),
        None if se_gate == "unknown" else se_gate,
    )


def backbone_of(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Take the weights of a model's backbone; all, if it is a backbone's own."""
    prefix = "backbone."
    inside = {n: v for n, v in state_dict.items() if n.startswith(prefix)}
    return {n.removeprefix(prefix): v for n, v in (inside or state_dict).items()}


def _gate_of_config(content: Mapping[str, Any]) -> str:
    """Find the SE gate in the config that MMEngine keeps as text in a checkpoint."""
    meta = content.get("meta")
    text = meta.get("cfg") if isinstance(meta, dict) else None
    if not isinstance(text, str):
        return "unknown"
    named = re.search(r"se_gate=['\"](\w+)['\"]", text)
    return named[1] if named else "hard_sigmoid"


def _check_tensors(state_dict: Mapping[str, Any], source: str) -> None:
    """Check that all values are dense tensors of finite numbers."""
    for name, value in state_dict.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            problem = f"a {type(value).__name__}, expected a dense tensor"
        elif name.endswith("num_batches_tracked"):
            continue
        elif value.is_meta or not value.is_floating_point():
            problem = f"of {value.dtype} on {value.device}, expected floating point"
        elif not torch.isfinite(value).all():
            problem = "with NaN or infinity"
        else:
            continue
        raise UserError(f"{source} cannot be used: {name} is {problem}")


def _check_architecture(state_dict: Mapping[str, Any], source: str) -> None:
    """Refuse the weights of other networks."""
    if "conv_stem.weight" in state_dict and any(
        name.startswith("blocks.0.0.ghost1.") for name in state_dict
    ):
        return
    if any(re.match(r"features\.\d+\.conv\.\d+\.primary_conv", n) for n in state_dict):
        raise UserError(
            f"{source} is d-li14's GhostNet, another network: its shortcuts have a 3x3 "
            "depthwise convolution with ReLU whatever the kernel of the block, and its "
            "SE gate is clip(x, 0, 1); give weights of the official network, timm's or "
            "PaddleClas's"
        )
    found = ", ".join(map(str, list(state_dict)[:3])) or "nothing"
    raise UserError(
        f"{source} has another architecture than GhostNet, GhostNetV2 and GhostNetV3: "
        f"it begins with {found}; expected names such as conv_stem.weight and "
        "blocks.0.0.ghost1.primary_conv.0.weight, with or without the prefix backbone."
    )


def _width_of(state_dict: Mapping[str, Any]) -> float:
    """Divide the channels of the widest bottleneck by their number at 1.0x."""
    widest = (0, 0.0)
    for name, row in zip(BOTTLENECKS, (row for rows in BLOCKS for row in rows)):
        for conv in ("primary_conv.0.weight", "primary_rpr_conv.0.conv.weight"):
            weight = state_dict.get(f"{name}.ghost1.{conv}")
            if isinstance(weight, Tensor):
                # Half of the channels are intrinsic.
                widest = max(widest, (row.exp, round(2 * len(weight) / row.exp, 3)))
    return widest[1]
