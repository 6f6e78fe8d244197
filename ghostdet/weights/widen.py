"""Widen a GhostNet and keep its outputs.

See "Net2Net: Accelerating Learning via Knowledge Transfer" (Chen, Goodfellow and
Shlens, ICLR 2016, https://arxiv.org/abs/1511.05641): added channels repeat old ones,
and weights that read a repeated channel are divided by the number of repeats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ghostdet.errors import ConfigError, UserError
from ghostdet.models import GhostNet
from ghostdet.models.layers.ghost_module import make_divisible

# The outputs of a Ghost module are two halves, intrinsic maps and their ghosts, and an
# identity shortcut adds them to the outputs of the module before. So channels are
# repeated either as one PART or as two HALVES, in the same way everywhere.
PART, HALVES = 1, 2
# Outputs and inputs of each layer (None: an image, a depthwise layer, or classes).
_LAYERS = {
    r"conv_stem|bn1": (HALVES, None),
    r".+\.primary_conv\.0": (PART, HALVES),
    r".+\.primary_conv\.1|.+\.cheap_operation\.[01]": (PART, None),
    r".+\.(conv_dw|bn_dw|shortcut\.[013])": (HALVES, None),
    r".+\.se\.conv_reduce": (PART, HALVES),
    r".+\.se\.conv_expand": (HALVES, PART),
    r".+\.shortcut\.2": (HALVES, HALVES),
    r"blocks\.9\.0\.conv": (PART, HALVES),
    r"blocks\.9\.0\.bn1": (PART, None),
    r"conv_head": (None, PART),
    r"classifier": (None, None),
}


def widen_state_dict(
    state_dict: Mapping[str, Tensor],
    widen_factor: float,
    noise: float = 0.0,
    seed: int = 0,
    se_divisor: int | None = None,
) -> dict[str, Tensor]:
    """Widen a GhostNet and keep its outputs.

    The logits of a classifier stay the same, and each feature level repeats some of its
    channels. Repeated channels stay equal in training unless noise sets them apart.

    Args:
        state_dict: Weights of a GhostNet under the official names.
        widen_factor: The width to reach.
        noise: Standard deviation of the noise on the weights of repeated channels, as a
            share of the standard deviation of their layer.
        seed: Seed of the noise.
        se_divisor: Divisor of the wider network's SE channels, see ``GhostNet``;
            defaults to the narrow one's.

    Returns:
        The weights of a GhostNet of that width, of the same types.

    Raises:
        UserError: If the weights belong to another network.
        ConfigError: If the network is already wider than ``widen_factor``, or an
            argument is out of range.

    Example:
        >>> from ghostdet.models import GhostNet
        >>> narrow, wide = GhostNet(1.0), GhostNet(1.1)
        >>> _ = wide.load_state_dict(widen_state_dict(narrow.state_dict(), 1.1))
    """
    if not (0 < widen_factor < math.inf and 0 <= noise < math.inf):
        raise ConfigError(
            f"widen_factor is {widen_factor!r} and noise {noise!r}, expected numbers "
            "above 0, and from 0"
        )
    if se_divisor is None:
        se_divisor = se_divisor_of(state_dict)
    with torch.device("meta"):
        target = GhostNet(
            widen_factor, out_indices=(4,), se_divisor=se_divisor
        ).state_dict()
    generator = torch.Generator().manual_seed(seed)
    return {
        name: _widen(name, tensor, target, widen_factor, noise, generator)
        for name, tensor in state_dict.items()
    }


def se_divisor_of(state_dict: Mapping[str, Tensor]) -> int:
    """Derive the divisor of SE's reduced channels: 4, or 1 if they are not rounded.

    Args:
        state_dict: Weights under the official names.
    """
    shapes = [
        v.shape for n, v in state_dict.items() if n.endswith("conv_reduce.weight")
    ]
    return 4 if all(r == make_divisible(exp / 4) for r, exp, *_ in shapes) else 1


def _widen(
    name: str,
    tensor: Tensor,
    target: Mapping[str, Tensor],
    widen_factor: float,
    noise: float,
    generator: torch.Generator,
) -> Tensor:
    layer, _, kind = name.rpartition(".")
    rule = next((r for p, r in _LAYERS.items() if re.fullmatch(p, layer)), None)
    if rule is None or (name not in target and rule[0] is not None):
        raise UserError(
            f"only a GhostNet (V1) under its official names can be widened, and this "
            f"has {name}"
        )
    outputs, inputs = rule
    if kind == "num_batches_tracked":
        return tensor.clone()
    wide = tensor
    if outputs is not None:
        index = _repeats(len(tensor), len(target[name]), outputs, name, widen_factor)
        wide = tensor[index]
    if kind == "weight" and inputs is not None:
        # conv_head reads the channels of the last block.
        count = (
            len(target["blocks.9.0.bn1.bias"])
            if name == "conv_head.weight"
            else target[name].shape[1]
        )
        index = _repeats(tensor.shape[1], count, inputs, name, widen_factor)
        repeats = torch.bincount(index, minlength=tensor.shape[1])[index]
        wide = wide[:, index] / repeats.to(tensor).view(1, -1, 1, 1)
    if noise and outputs is not None and tensor.dim() == 4:
        # Each part begins with the old channels.
        part = torch.arange(len(wide) // outputs) >= len(tensor) // outputs
        repeated = part.repeat(outputs)
        shape = wide[repeated].shape
        drawn = torch.randn(shape, generator=generator).to(tensor)
        wide[repeated] += noise * wide.std() * drawn
    return wide.clone()


def _repeats(old: int, new: int, parts: int, name: str, widen_factor: float) -> Tensor:
    """Give the index of the old channel that each new one repeats."""
    if new < old:
        raise ConfigError(
            f"widen_factor={widen_factor} is less than the weights have: {name} has "
            f"{old} channels, and {new} at that width; give a larger one"
        )
    half = torch.arange(new // parts) % (old // parts)
    return torch.cat([half + part * (old // parts) for part in range(parts)])
