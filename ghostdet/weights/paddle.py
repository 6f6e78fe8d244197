"""Convert weights of PaddleClas to the official names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ghostdet.errors import UserError
from ghostdet.models.backbones.ghostnet import BLOCKS

# The bottlenecks in the official names, in the order of PaddleClas's numbers.
BOTTLENECKS = [
    f"blocks.{stage}.{index}"
    for stage, rows in enumerate(BLOCKS)
    for index in range(len(rows))
]


# Names of PaddleClas (ghostnet.py of its model zoo) and the official ones. A `conv`
# there is followed by `_conv` and `_batch_norm`, here by the two names in braces.
_IN_BOTTLENECK = {
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
_OUTSIDE = {"conv1": "{conv_stem,bn1}", "conv_last": "blocks.9.0.{conv,bn1}"}
_NORM = {"_mean": "running_mean", "_variance": "running_var"}
# Its classifier has another form, and paddle.save adds a dictionary of names.
_DROPPED = ("fc_0.", "fc_1.", "StructuredToParameterName@@")


def from_paddle(state_dict: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Rename the weights of a backbone, and drop the classifier.

    Args:
        state_dict: The content of a ``.pdparams`` file.
        source: The file, for the message.

    Raises:
        UserError: If a name is not one of PaddleClas's GhostNet.
    """
    rules = {
        **_OUTSIDE,
        **{
            f"_ghostbottleneck_{number}.{theirs}": f"{ours}.{name}"
            for number, ours in enumerate(BOTTLENECKS)
            for theirs, name in _IN_BOTTLENECK.items()
        },
    }
    converted, unknown = {}, []
    for name, value in state_dict.items():
        if name.startswith(_DROPPED):
            continue
        match = re.fullmatch(r"(.+?)(?:\.(_conv|_batch_norm))?\.(\w+)", name)
        ours = rules.get(match[1]) if match else None
        if ours is None or not isinstance(value, (np.ndarray, Tensor)):
            unknown.append(name)
            continue
        layer, kind = match[2], _NORM.get(match[3], match[3])
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
