"""Ghost convolutions, the building blocks of GhostNet.

"GhostNet: More Features from Cheap Operations", CVPR 2020,
https://arxiv.org/abs/1911.11907.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmdet.models.utils import make_divisible as _make_divisible
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from ghostdet.errors import ConfigError

BN = dict(type="BN")
RELU = dict(type="ReLU", inplace=True)
# SE's gates: relu6(x + 3) / 6 in the official PyTorch network, clip(x, 0, 1) in the
# TensorFlow original and in PaddleClas, which follows it.
SE_GATES = {"hard_sigmoid": F.hardsigmoid, "clip": partial(torch.clamp, min=0, max=1)}


def make_divisible(value: float, divisor: int = 4) -> int:
    """Round a channel count as the official ``ghostnet_pytorch/ghostnet.py`` does."""
    return _make_divisible(value, divisor)


def check_ratio(ratio: int) -> None:
    """Raise a ConfigError if it cannot be the ratio of a Ghost module."""
    if ratio < 1 or ratio != int(ratio):
        raise ConfigError(f"ratio is {ratio!r}, expected an integer of 1 or more")


def check_odd(**kernels: int) -> None:
    """Raise a ConfigError for kernels that do not keep the size of their input."""
    for name, kernel in kernels.items():
        if kernel < 1 or kernel % 2 != 1:
            raise ConfigError(f"{name} is {kernel!r}, expected an odd integer")


def activation(act_cfg: dict | None) -> nn.Module:
    """Build an activation; None for the identity."""
    return nn.Identity() if act_cfg is None else build_activation_layer(act_cfg)


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    norm_cfg: dict,
    stride: int = 1,
    groups: int = 1,
) -> tuple[nn.Conv2d, nn.Module]:
    """A bias-free convolution that keeps the size (at stride 1), and its norm."""
    height, width = _pair(kernel_size)
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding=(height // 2, width // 2),
        groups=groups,
        bias=False,
    )
    return conv, build_norm_layer(norm_cfg, out_channels)[1]


class ConvNorm(nn.Sequential):
    """A convolution and its norm, named as in the official networks."""

    def __init__(self, *args: int | dict, **kwargs: int) -> None:
        super().__init__()
        self.conv, self.bn1 = conv_norm(*args, **kwargs)


def set_gradient_layout(x: Tensor, layout: torch.memory_format) -> None:
    """Make the gradient of ``x`` dense, in a memory layout, for speed.

    Does nothing where PyTorch exports or compiles.
    """

    def hook(grad: Tensor | None) -> Tensor | None:
        return None if grad is None else grad.contiguous(memory_format=layout)

    tracing = torch.jit.is_tracing() or torch.compiler.is_compiling()
    if x.requires_grad and not tracing:
        x.register_hook(hook)


def join(intrinsic: Tensor, ghost: Tensor, channels: int) -> Tensor:
    """Concatenate intrinsic and ghost maps, and cut them to ``channels``."""
    maps = torch.cat([intrinsic, ghost], dim=1)
    # The gradients of torch.cat are views, for which BN's backward pass has no fast
    # path: in channels-last it takes 2 to 40 times as long.
    plain = maps.is_contiguous()
    layout = torch.contiguous_format if plain else torch.channels_last
    set_gradient_layout(ghost, layout)
    return maps[:, :channels]


class GhostModule(BaseModule):
    """A convolution that computes only some of its output maps densely.

    A primary convolution makes ``m = ceil(out_channels / ratio)`` intrinsic maps, a
    depthwise one makes ``m * (ratio - 1)`` ghost maps from them; both are concatenated
    and cut to ``out_channels``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; need not be a multiple of ``ratio``.
        kernel_size: Kernel of the primary convolution.
        ratio: ``s`` of the paper. 1 is an ordinary convolution.
        dw_kernel: ``d`` of the paper, the kernel of the cheap depthwise convolution.
        stride: Stride of the primary convolution.
        norm_cfg: Norm after each of the two convolutions.
        act_cfg: Activation after each of the two norms; ``None`` for a linear module.
        init_cfg: MMEngine initialiser.

    Raises:
        ConfigError: If ``ratio`` or a kernel is not a usable integer.

    Example:
        >>> import torch
        >>> GhostModule(16, 25, ratio=3)(torch.rand(2, 16, 8, 8)).shape
        torch.Size([2, 25, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        ratio: int = 2,
        dw_kernel: int = 3,
        stride: int = 1,
        norm_cfg: dict = BN,
        act_cfg: dict | None = RELU,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_ratio(ratio)
        check_odd(kernel_size=kernel_size, dw_kernel=dw_kernel)
        self.out_channels = out_channels
        intrinsic = math.ceil(out_channels / ratio)
        self.primary_conv = nn.Sequential(
            *conv_norm(in_channels, intrinsic, kernel_size, norm_cfg, stride),
            activation(act_cfg),
        )
        self.cheap_operation = None
        if ratio > 1:
            ghosts = intrinsic * (ratio - 1)
            self.cheap_operation = nn.Sequential(
                *conv_norm(intrinsic, ghosts, dw_kernel, norm_cfg, groups=intrinsic),
                activation(act_cfg),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Run the module.

        Args:
            x: ``(N, in_channels, H, W)``, floating point.

        Returns:
            ``(N, out_channels, H / stride, W / stride)``, sizes rounded up.
        """
        intrinsic = self.primary_conv(x)
        if self.cheap_operation is None:
            return intrinsic
        return join(intrinsic, self.cheap_operation(intrinsic), self.out_channels)


class SqueezeExcite(nn.Module):
    """Channel attention.

    Args:
        channels: Channels of the input and the output.
        reduced_channels: Channels between the two 1x1 convolutions.
        gate: Key of ``SE_GATES``.

    Raises:
        ConfigError: If ``gate`` is not known.
    """

    def __init__(
        self, channels: int, reduced_channels: int, gate: str = "hard_sigmoid"
    ) -> None:
        super().__init__()
        if gate not in SE_GATES:
            raise ConfigError(f"se_gate is {gate!r}, expected one of {list(SE_GATES)}")
        self.gate = SE_GATES[gate]
        self.conv_reduce = nn.Conv2d(channels, reduced_channels, 1)
        self.conv_expand = nn.Conv2d(reduced_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel of ``x`` ``(N, channels, H, W)`` by a factor in [0, 1]."""
        return x * self.factors(x.mean((2, 3), keepdim=True))

    def factors(self, means: Tensor) -> Tensor:
        """Factors of the channels, from their means; both ``(N, channels, 1, 1)``."""
        return self.gate(self.conv_expand(F.relu(self.conv_reduce(means))))


class GhostBottleneck(BaseModule):
    """Ghost module, optional strided depthwise convolution and SE, Ghost module.

    The output is linear: neither the second Ghost module nor the addition of the
    shortcut is followed by an activation.

    Args:
        in_channels: Channels of the input.
        mid_channels: Channels between the two Ghost modules (``exp`` of the paper).
        out_channels: Channels of the output.
        kernel_size: Kernel of the strided depthwise convolution and of the shortcut's.
        stride: 1, or 2 and more to reduce the size.
        se_ratio: SE's reduced channels as a share of ``mid_channels``; 0 for no SE.
        se_gate: SE's gate, ``'hard_sigmoid'`` or ``'clip'``.
        se_divisor: SE's reduced channels are rounded to a multiple of it.
        ratio: ``ratio`` of both Ghost modules.
        dw_kernel: ``dw_kernel`` of both Ghost modules.
        norm_cfg: Norm after each convolution.
        init_cfg: MMEngine initialiser.

    Raises:
        ConfigError: If ``ratio`` or a kernel is not a usable integer.

    Example:
        >>> import torch
        >>> block = GhostBottleneck(24, 72, 40, kernel_size=5, stride=2, se_ratio=0.25)
        >>> block(torch.rand(1, 24, 15, 15)).shape
        torch.Size([1, 40, 8, 8])
    """

    _expansion = _projection = GhostModule  # what ghost1 and ghost2 are

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        se_ratio: float = 0.0,
        se_gate: str = "hard_sigmoid",
        se_divisor: int = 4,
        ratio: int = 2,
        dw_kernel: int = 3,
        norm_cfg: dict = BN,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_odd(kernel_size=kernel_size)
        ghost = dict(ratio=ratio, dw_kernel=dw_kernel, norm_cfg=norm_cfg)

        self.ghost1 = self._expansion(in_channels, mid_channels, **ghost)
        self._build_downsampling(mid_channels, kernel_size, stride, norm_cfg)
        self.se = None
        if se_ratio > 0:
            reduced = make_divisible(mid_channels * se_ratio, se_divisor)
            self.se = SqueezeExcite(mid_channels, reduced, se_gate)
        self.ghost2 = self._projection(
            mid_channels, out_channels, act_cfg=None, **ghost
        )

        self.shortcut = nn.Sequential()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                *conv_norm(
                    in_channels, in_channels, kernel_size, norm_cfg, stride, in_channels
                ),
                *conv_norm(in_channels, out_channels, 1, norm_cfg),
            )

    def _build_downsampling(
        self, channels: int, kernel_size: int, stride: int, norm_cfg: dict
    ) -> None:
        self.conv_dw = self.bn_dw = None
        if stride > 1:
            self.conv_dw, self.bn_dw = conv_norm(
                channels, channels, kernel_size, norm_cfg, stride, channels
            )

    def _downsample(self, x: Tensor) -> Tensor:
        return x if self.conv_dw is None else self.bn_dw(self.conv_dw(x))

    def forward(self, x: Tensor) -> Tensor:
        """Run the block.

        Args:
            x: ``(N, in_channels, H, W)``, floating point.

        Returns:
            ``(N, out_channels, H / stride, W / stride)``, sizes rounded up.
        """
        out = self._downsample(self.ghost1(x))
        if self.se is not None:
            out = self.se(out)
        return self.ghost2(out) + self.shortcut(x)
