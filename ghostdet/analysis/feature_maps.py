"""Capture feature maps, find similar ones, and trace ghost maps to their origins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from ghostdet.errors import UserError
from ghostdet.models.backbones.ghostnetv3 import GhostModuleV3, merge_branches
from ghostdet.models.layers.ghost_conv import GhostConv
from ghostdet.models.layers.ghost_module import GhostModule

GHOST_MODULES = GhostModule, GhostModuleV3, GhostConv


class Ghost(NamedTuple):
    """The parts of a Ghost module."""

    primary: nn.Module  # returns the intrinsic maps
    cheap: nn.Module  # returns the ghost maps
    conv: nn.Conv2d  # the depthwise convolution in it, with BN folded in
    out_channels: int  # both are concatenated and cut to this number


def ghost_of(module: nn.Module) -> Ghost | None:
    """Take a Ghost module apart.

    Args:
        module: In evaluation mode.

    Returns:
        Its parts; None for another module, or for ratio 1. The parallel branches of a
        :class:`GhostModuleV3` are merged to one convolution.
    """
    if isinstance(module, GhostModuleV3) and module.cheap_operation is None:
        branches = [*module.cheap_rpr_conv, module.cheap_rpr_scale]
        primary, cheap = module.primary_activation, module.cheap_activation
        conv = merge_branches(branches, module.cheap_rpr_skip)
    elif isinstance(module, GHOST_MODULES):
        primary, cheap = module.primary_conv, module.cheap_operation
        if cheap is None:
            return None
        conv, *rest = [cheap] if isinstance(cheap, nn.Conv2d) else cheap
        if rest and isinstance(rest[0], nn.BatchNorm2d):
            conv = fuse_conv_bn_eval(conv, rest[0])
    else:
        return None
    return Ghost(primary, cheap, conv, module.out_channels)


def ghost_origins(module: nn.Module) -> list[int]:
    """Trace each output map of a Ghost module to the intrinsic map it is made from.

    Args:
        module: A :class:`~ghostdet.models.GhostModule` or one of V2 or V3, or a
            :class:`~ghostdet.models.layers.ghost_conv.GhostConv`, in evaluation mode.

    Returns:
        The number of the intrinsic map for each of ``out_channels``. The first channels
        are the intrinsic maps themselves.

    Raises:
        UserError: If it makes no ghost maps.

    Example:
        >>> from ghostdet.models.layers.ghost_module import GhostModule
        >>> ghost_origins(GhostModule(16, 8, ratio=3).eval())
        [0, 1, 2, 0, 0, 1, 1, 2]
    """
    ghost = ghost_of(module)
    if ghost is None:
        raise UserError(
            f"a {type(module).__name__} makes no ghost maps here; give a Ghost module "
            "of ratio 2 or more"
        )
    intrinsic = ghost.conv.in_channels
    each = ghost.conv.out_channels // intrinsic
    origins = [*range(intrinsic), *(j // each for j in range(ghost.conv.out_channels))]
    return origins[: ghost.out_channels]


@torch.no_grad()
def capture(modules: Sequence[nn.Module], run: Callable[[], Any]) -> list[Any]:
    """Run a network and keep the outputs of modules in it.

    Args:
        modules: Parts of the network.
        run: Function that runs it.

    Returns:
        The first output of each module, None for a module that was not called. Tensors
        are copied, because later layers may write into them.
    """
    outputs: dict[nn.Module, Any] = {}

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if module not in outputs:
            one = isinstance(output, Tensor)
            outputs[module] = output.clone() if one else output

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return [outputs.get(module) for module in modules]


def similar_pairs(maps: np.ndarray, count: int) -> list[tuple[int, int, float]]:
    """Find the most similar pairs of maps, each map in at most one pair.

    The similarity of two maps is the absolute value of Pearson's correlation
    coefficient over all positions: 1 if one is a multiple of the other plus a constant.
    Constant maps have no similarity and are in no pair. Pairs are chosen greedily, the
    most similar pair first.

    Args:
        maps: ``(C, H, W)``, finite.
        count: How many pairs, at most.

    Returns:
        ``(i, j, similarity)`` with ``i < j``, the most similar first.

    Example:
        >>> a, b = np.random.default_rng(0).normal(size=(2, 4, 4))
        >>> [(i, j, round(s, 6)) for i, j, s in similar_pairs(np.stack([a, b, -a]), 6)]
        [(0, 2, 1.0)]
    """
    values = np.asarray(maps, np.float64).reshape(len(maps), -1)
    ranges = np.ptp(values, axis=1)
    varying = np.flatnonzero(ranges)
    # Scaled to one range, so that squares neither underflow nor overflow.
    values = values[varying] / ranges[varying, None]
    values -= values.mean(axis=1, keepdims=True)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    similarity = np.minimum(np.abs(values @ values.T), 1)
    first, second = np.triu_indices(len(varying), k=1)
    order = np.argsort(-similarity[first, second], kind="stable")
    pairs, taken = [], set()
    for i, j in zip(first[order].tolist(), second[order].tolist()):
        if len(pairs) == count:
            break
        if not taken & {i, j}:
            taken |= {i, j}
            pair = int(varying[i]), int(varying[j])
            pairs.append((*pair, float(similarity[i, j])))
    return pairs
