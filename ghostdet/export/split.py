"""Ghost bottlenecks without the concatenation of their widest maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ghostdet.models.layers.ghost_module import GhostBottleneck


class SplitBottleneck(nn.Module):
    """A Ghost bottleneck that keeps intrinsic and ghost maps in two tensors.

    All layers between the two Ghost modules treat each channel by itself, and the 1x1
    convolution that follows is a sum over channels. So the halves need not be copied
    into one tensor, which takes a third of the bottleneck's time on a CPU.

    Args:
        block: A bottleneck in evaluation mode for which :func:`can_split` holds.
    """

    def __init__(self, block: GhostBottleneck) -> None:
        super().__init__()
        expansion, projection = block.ghost1, block.ghost2
        intrinsic = expansion.primary_conv[0].out_channels
        self.sizes = [intrinsic, expansion.out_channels - intrinsic]
        halves = slice(0, intrinsic), slice(intrinsic, expansion.out_channels)
        self.ghost1 = nn.ModuleList([expansion.primary_conv, expansion.cheap_operation])
        self.conv_dw = None
        if block.conv_dw is not None:
            self.conv_dw = nn.ModuleList(
                _part(block.conv_dw, block.conv_dw.weight[half], half)
                for half in halves
            )
        self.se = block.se
        first, *rest = projection.primary_conv
        # The sum has one bias: the first half adds it.
        self.project = nn.ModuleList(
            _part(first, first.weight[:, half], slice(0 if half.start else None))
            for half in halves
        )
        self.rest = nn.Sequential(*rest)
        self.cheap_operation = projection.cheap_operation
        self.out_channels = projection.out_channels
        self.shortcut = block.shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Run the block; see :class:`~ghostdet.models.GhostBottleneck` for shapes."""
        intrinsic = self.ghost1[0](x)
        halves = [intrinsic, self.ghost1[1](intrinsic)[:, : self.sizes[1]]]
        if self.conv_dw is not None:
            halves = [conv(half) for conv, half in zip(self.conv_dw, halves)]
        if self.se is not None:
            means = [half.mean((2, 3), keepdim=True) for half in halves]
            factors = self.se.factors(torch.cat(means, dim=1)).split(self.sizes, dim=1)
            halves = [half * factor for half, factor in zip(halves, factors)]
        out = self.rest(self.project[0](halves[0]) + self.project[1](halves[1]))
        out = torch.cat([out, self.cheap_operation(out)], dim=1)
        return out[:, : self.out_channels] + self.shortcut(x)


def can_split(block: nn.Module) -> bool:
    """Tell whether a block is a Ghost bottleneck that treats channels one by one."""
    return isinstance(block, GhostBottleneck) and (
        all(
            ghost.cheap_operation is not None  # it is None for ratio 1
            and getattr(ghost, "short_conv", None) is None  # V2's and V3's attention
            for ghost in (block.ghost1, block.ghost2)
        )
        and (block.bn_dw is None or type(block.bn_dw) is nn.Identity)
    )


def _part(conv: nn.Conv2d, weight: Tensor, biases: slice) -> nn.Conv2d:
    """Make a convolution with a part of the weights and of the biases."""
    groups = 1 if conv.groups == 1 else len(weight)
    bias = None if conv.bias is None else conv.bias[biases]
    part = nn.Conv2d(
        weight.shape[1] * groups,
        len(weight),
        conv.kernel_size,
        conv.stride,
        conv.padding,
        groups=groups,
        bias=bias is not None and len(bias) > 0,
        device="meta",
    )
    part.weight = nn.Parameter(weight.detach().clone())
    if part.bias is not None:
        part.bias = nn.Parameter(bias.detach().clone())
    return part
