"""Widening of a GhostNet that keeps what it computes.

After "Net2Net: Accelerating Learning via Knowledge Transfer" (Chen, Goodfellow and
Shlens, ICLR 2016, https://arxiv.org/abs/1511.05641): channels that are added repeat old
ones, and what reads a repeated channel is divided by the number of repeats.
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

# Outputs of a Ghost module are two halves, intrinsic maps and the ghost of each, and an
# identity shortcut adds them to those of the module before. So a dimension of channels
# is repeated either as one PART or as two HALVES, in the same way everywhere.
PART, HALVES = 1, 2
# Which layers have which outputs and read which inputs (None: an image, or depthwise).
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
    """Widen a GhostNet, keeping its outputs.

    Classifier logits stay the same, and each tap's channels are the original's, some of
    them repeated. Channels that are equal in everything stay equal in training: some
    noise lets them part.

    Args:
        state_dict: Weights of a GhostNet under the official names.
        widen_factor: The width to reach.
        noise: Standard deviation of the noise that is added to the weights of repeated
            channels, as a share of that of all weights of their layer.
        seed: Seed of the noise.
        se_divisor: Of the wider network; by default that of the narrow one.

    Returns:
        The weights of a GhostNet of that width, of the same types.

    Raises:
        UserError: If the weights are of another network.
        ConfigError: If the network is wider than ``widen_factor`` already, or an
            argument is out of range.

    Example:
        >>> from ghostdet.models import GhostNet
        >>> narrow, wide = GhostNet(1.0), GhostNet(1.1)
        >>> _ = wide.load_state_dict(widen_state_dict(narrow.state_dict(), 1.1))
    """
    if not (0 < widen_factor < math.inf and 0 <= noise < math.inf):
        raise ConfigError(
            f"widen_factor is {widen_factor!r} and noise {noise!r}, expected numbers "
            "of more than 0, and of 0 or more"
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
    """What SE's reduced channels of a GhostNet were rounded to: 4, or 1 for not at all.

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
        repeated = _is_repeat(index)
    if kind == "weight" and inputs is not None:
        # The channels that conv_head reads are those of the last block.
        count = (
            len(target["blocks.9.0.bn1.bias"])
            if name == "conv_head.weight"
            else target[name].shape[1]
        )
        index = _repeats(tensor.shape[1], count, inputs, name, widen_factor)
        repeats = torch.bincount(index, minlength=tensor.shape[1])[index]
        wide = wide[:, index] / repeats.to(tensor).view(1, -1, 1, 1)
    if noise and outputs is not None and tensor.dim() == 4:
        shape = wide[repeated].shape
        drawn = torch.randn(shape, generator=generator).to(tensor)
        wide[repeated] += noise * wide.std() * drawn
    return wide.clone()


def _repeats(old: int, new: int, parts: int, name: str, widen_factor: float) -> Tensor:
    """For each of the new channels, which old one it repeats."""
    if new < old:
        raise ConfigError(
            f"widen_factor={widen_factor} is less than these weights have: {name} has "
            f"{old} channels, and {new} at that width; give a larger one"
        )
    half = torch.arange(new // parts) % (old // parts)
    return torch.cat([half + part * (old // parts) for part in range(parts)])


def _is_repeat(index: Tensor) -> Tensor:
    """Where an old channel appears again."""
    first: dict[int, int] = {}
    return torch.tensor(
        [first.setdefault(old, new) != new for new, old in enumerate(index.tolist())]
    )
