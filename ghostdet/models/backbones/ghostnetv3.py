"""GhostNetV3: GhostNetV2 with parallel branches that are merged for inference.

"GhostNetV3: Exploring the Training Strategies for Compact Models",
https://arxiv.org/abs/2404.11202. Parameter names are timm's for ``ghostnetv3_100``: the
official ones (``ghostnetv3.py`` of
https://github.com/huawei-noah/Efficient-AI-Backbones) with ``bn1`` instead of ``bn``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ghostdet.errors import ConfigError
from ghostdet.models.backbones.ghostnet import GhostNet
from ghostdet.models.backbones.ghostnetv2 import dfc_attention, dfc_gate
from ghostdet.models.layers.ghost_module import (
    BN,
    RELU,
    ConvNorm,
    GhostBottleneck,
    activation,
    join,
)

BRANCHES = 3  # num_conv_branches of the official network


class GhostModuleV3(nn.Module):
    """A 1x1 Ghost module of parallel branches.

    The primary convolution is the sum of three equal ones. The cheap one is the sum of
    three equal depthwise ones, a depthwise 1x1 one and a norm alone. In evaluation the
    branches can be merged into the two convolutions of :class:`GhostModule`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        ratio: Only 2, since a branch returns intrinsic maps as ghost maps.
        dw_kernel: Kernel of the cheap depthwise convolutions.
        norm_cfg: Norm after each convolution; merging branches needs BN.
        act_cfg: Activation after each of the two sums; ``None`` for a linear module.
        dfc: Scale the output by DFC attention on the input.

    Raises:
        ConfigError: If ``ratio`` is not 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        ratio: int = 2,
        dw_kernel: int = 3,
        norm_cfg: dict = BN,
        act_cfg: dict | None = RELU,
        dfc: bool = False,
    ) -> None:
        super().__init__()
        if ratio != 2:
            raise ConfigError(f"ratio is {ratio!r}, expected 2 for GhostNetV3")
        self.out_channels = out_channels
        intrinsic = -(-out_channels // 2)

        def cheap(kernel: int) -> ConvNorm:
            return ConvNorm(intrinsic, intrinsic, kernel, norm_cfg, groups=intrinsic)

        self.primary_rpr_conv = nn.ModuleList(
            ConvNorm(in_channels, intrinsic, 1, norm_cfg) for _ in range(BRANCHES)
        )
        self.primary_activation = activation(act_cfg)
        self.cheap_rpr_skip = build_norm_layer(norm_cfg, intrinsic)[1]
        self.cheap_rpr_conv = nn.ModuleList(cheap(dw_kernel) for _ in range(BRANCHES))
        self.cheap_rpr_scale = cheap(1)
        self.cheap_activation = activation(act_cfg)
        self.primary_conv = self.cheap_operation = self.short_conv = None
        if dfc:
            self.short_conv = dfc_attention(in_channels, out_channels, norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Run the module; shapes as in :class:`GhostModule`."""
        if self.primary_conv is not None:
            intrinsic = self.primary_conv(x)
            ghost = self.cheap_operation(intrinsic)
        else:
            intrinsic = self.primary_activation(_sum(self.primary_rpr_conv, x))
            ghost = self.cheap_rpr_scale(intrinsic) + self.cheap_rpr_skip(intrinsic)
            ghost = self.cheap_activation(_sum(self.cheap_rpr_conv, intrinsic, ghost))
        out = join(intrinsic, ghost, self.out_channels)
        if self.short_conv is None:
            return out
        return out * F.interpolate(dfc_gate(self.short_conv, x), size=out.shape[2:])

    def switch_to_deploy(self) -> None:
        """Merge the branches for good."""
        if self.primary_conv is not None:
            return
        self.primary_conv = nn.Sequential(
            merge_branches(self.primary_rpr_conv), self.primary_activation
        )
        self.cheap_operation = nn.Sequential(
            merge_branches(
                [*self.cheap_rpr_conv, self.cheap_rpr_scale], self.cheap_rpr_skip
            ),
            self.cheap_activation,
        )
        del self.primary_rpr_conv, self.primary_activation, self.cheap_activation
        del self.cheap_rpr_conv, self.cheap_rpr_scale, self.cheap_rpr_skip


class GhostBottleneckV3(GhostBottleneck):
    """:class:`GhostBottleneck` of parallel branches."""

    _expansion = _projection = GhostModuleV3

    def _build_downsampling(
        self, channels: int, kernel_size: int, stride: int, norm_cfg: dict
    ) -> None:
        self.conv_dw = self.bn_dw = self.dw_rpr_conv = None
        if stride == 1:
            return
        args = (channels, channels)
        self.dw_rpr_conv = nn.ModuleList(
            ConvNorm(*args, kernel_size, norm_cfg, stride, channels)
            for _ in range(BRANCHES)
        )
        self.dw_rpr_scale = ConvNorm(*args, 1, norm_cfg, stride, channels)

    def _downsample(self, x: Tensor) -> Tensor:
        if self.dw_rpr_conv is not None:
            return _sum(self.dw_rpr_conv, x, self.dw_rpr_scale(x))
        return x if self.conv_dw is None else self.conv_dw(x)

    def switch_to_deploy(self) -> None:
        """Merge the branches for good."""
        if self.dw_rpr_conv is None:
            return
        self.conv_dw = merge_branches([*self.dw_rpr_conv, self.dw_rpr_scale])
        self.dw_rpr_conv = None
        del self.dw_rpr_scale


class DFCGhostBottleneckV3(GhostBottleneckV3):
    """:class:`GhostBottleneckV3` whose first Ghost module has DFC attention."""

    _expansion = staticmethod(partial(GhostModuleV3, dfc=True))


@MODELS.register_module()
class GhostNetV3(GhostNet):
    """GhostNetV3 without its classifier.

    Arguments, feature levels, channels and strides are the same as in
    :class:`GhostNet`. Images need 33 px or more on each side.

    Example:
        >>> import torch
        >>> model = GhostNetV3(widen_factor=0.5, out_indices=(1, 2, 3)).eval()
        >>> model.switch_to_deploy()
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 224, 320))]
        [(1, 20, 28, 40), (1, 56, 14, 20), (1, 80, 7, 10)]
    """

    _bottlenecks = GhostBottleneckV3, DFCGhostBottleneckV3

    def switch_to_deploy(self) -> None:
        """Merge parallel branches for good; outputs stay the same.

        Raises:
            ConfigError: If the model is in training mode, which needs the branches.
        """
        if self.training:
            raise ConfigError("the model is in training mode; call model.eval() first")
        for module in self.modules():
            if isinstance(module, (GhostModuleV3, GhostBottleneckV3)):
                module.switch_to_deploy()


def _sum(branches: Iterable[nn.Module], x: Tensor, start: Tensor | int = 0) -> Tensor:
    return sum((branch(x) for branch in branches), start=start)


def merge_branches(
    branches: Iterable[ConvNorm], skip: nn.Module | None = None
) -> nn.Conv2d:
    """Merge a sum of convolutions into one, for evaluation.

    Args:
        branches: Convolutions with BN that differ in kernel size only, the largest
            first.
        skip: BN of a branch without a convolution, next to depthwise branches.

    Raises:
        ConfigError: If a norm is not BN.
    """
    branches = list(branches)
    conv = copy.deepcopy(branches[0].conv)
    height, width = conv.kernel_size
    pairs = [(branch.conv.weight, branch.bn1) for branch in branches]
    if skip is not None:
        pairs.append((torch.ones_like(branches[-1].conv.weight), skip))  # 1x1
    weight = bias = 0
    for kernel, norm in pairs:
        if not isinstance(norm, nn.BatchNorm2d):
            raise ConfigError(
                f"branches with {type(norm).__name__} cannot be merged; set "
                "norm_cfg=dict(type='BN')"
            )
        dy, dx = (height - kernel.shape[2]) // 2, (width - kernel.shape[3]) // 2
        folded = fuse_conv_bn_weights(
            F.pad(kernel, (dx, dx, dy, dy)).double(),
            None,
            norm.running_mean.double(),
            norm.running_var.double(),
            norm.eps,
            norm.weight.double(),
            norm.bias.double(),
        )
        weight, bias = weight + folded[0], bias + folded[1]
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(weight.detach().to(dtype), conv.weight.requires_grad)
    conv.bias = nn.Parameter(bias.detach().to(dtype), conv.weight.requires_grad)
    return conv
