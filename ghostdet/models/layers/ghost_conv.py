"""A convolution in its Ghost form, for any component built on MMCV's layers."""

from __future__ import annotations

import math

from mmengine.model import kaiming_init
from mmengine.registry import MODELS
from torch import Tensor, nn

from ghostdet.models.layers.ghost_module import check_odd, check_ratio, join


class _Unnamed(nn.Conv2d):
    pass


class _CheapConv2d(_Unnamed):
    """A convolution that MMEngine's initialisers do not take for a ``Conv2d``.

    They go by the names of a class and its direct bases. Heads choose deviations for
    convolutions with hundreds of inputs, which are far too small for nine.
    """


@MODELS.register_module()
class GhostConv(nn.Module):
    """A convolution that computes some output maps densely, the others from those.

    ``conv_cfg=dict(type='GhostConv', ratio=2, dw_kernel=3)`` gives a component's
    convolutions this form: FPN, RetinaHead, FCOSHead, ResNet. Both parts are linear, as
    in the paper's equations, and the component's own norm and activation follow;
    :class:`GhostModule` has them after each part. A depthwise convolution is cheap
    already and stays one.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; need not be a multiple of ``ratio``.
        kernel_size: Kernel of the primary convolution.
        stride: Its stride.
        padding: Its padding.
        dilation: Its dilation.
        groups: Its groups.
        bias: Whether both parts have a bias.
        ratio: ``s`` of the paper. 1 is an ordinary convolution.
        dw_kernel: ``d`` of the paper, the kernel of the cheap depthwise convolution.

    Raises:
        ConfigError: If ``ratio`` or ``dw_kernel`` is not a usable integer.

    Example:
        >>> import torch
        >>> from mmcv.cnn import ConvModule
        >>> layer = ConvModule(16, 25, 3, padding=1, conv_cfg=dict(type='GhostConv'))
        >>> layer(torch.rand(2, 16, 8, 8)).shape
        torch.Size([2, 25, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        ratio: int = 2,
        dw_kernel: int = 3,
    ) -> None:
        super().__init__()
        check_ratio(ratio)
        check_odd(dw_kernel=dw_kernel)
        if groups == in_channels == out_channels:
            ratio = 1
        # As few intrinsic maps as suffice, the same number in each group.
        intrinsic = math.ceil(out_channels / ratio / groups) * groups
        self.primary_conv = nn.Conv2d(
            in_channels, intrinsic, kernel_size, stride, padding, dilation, groups, bias
        )
        self.cheap_operation = None
        if ratio > 1:
            self.cheap_operation = _CheapConv2d(
                intrinsic,
                intrinsic * (ratio - 1),
                dw_kernel,
                padding=dw_kernel // 2,
                groups=intrinsic,
                bias=bias,
            )
        self.out_channels = out_channels
        # Attributes that ConvModule reads from its convolution.
        for name in (
            "in_channels kernel_size stride padding dilation groups transposed "
            "output_padding"
        ).split():
            setattr(self, name, getattr(self.primary_conv, name))
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise both parts as ``ConvModule`` does an ordinary convolution."""
        kaiming_init(self.primary_conv)
        if self.cheap_operation is not None:
            kaiming_init(self.cheap_operation, mode="fan_in", nonlinearity="linear")

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer.

        Args:
            x: ``(N, in_channels, H, W)``, floating point.

        Returns:
            ``(N, out_channels, H', W')``, with the size of an ordinary convolution.
        """
        intrinsic = self.primary_conv(x)
        if self.cheap_operation is None:
            return intrinsic
        return join(intrinsic, self.cheap_operation(intrinsic), self.out_channels)
