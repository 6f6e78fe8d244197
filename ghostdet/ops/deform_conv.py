"""Deformable convolution, in the interface of ``mmcv._ext``.

Both versions run torchvision's kernel: version 1 without a mask, version 2
(modulated) with one. Offsets are ``(y, x)`` pairs for each kernel position of each
deformable group. MMCV's buffers (``columns``, ``ones``) and ``im2col_step`` are not
read.

Shapes: input ``(B, C, H, W)``, offset ``(B, 2 * DG * kH * kW, H', W')``, mask
``(B, DG * kH * kW, H', W')``, weight ``(O, C / groups, kH, kW)``, bias ``(O,)``,
output ``(B, O, H', W')``. A gradient has the shape of its tensor.
"""

from collections.abc import Iterable

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor

from ghostdet.ops.precision import at_least_float32

# Stride, padding, dilation, groups and deformable groups, as MMCV names them.
_V1 = "dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group"
_V2 = "stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w", *_V1[6:]


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **size: int,
) -> None:
    """Write a deformable convolution, version 1, into ``output``.

    `Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_.
    """
    arguments = _arguments(input, weight, offset, size=map(size.get, _V1))
    output.copy_(torch.ops.torchvision.deform_conv2d(*arguments))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **size: int,
) -> None:
    """Write the gradients of input and offset into ``grad_input``, ``grad_offset``."""
    arguments = _arguments(input, weight, offset, size=map(size.get, _V1))
    gradients = _backward(grad_output, arguments)
    grad_input.copy_(gradients[0])
    grad_offset.copy_(gradients[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **size: int,
) -> None:
    """Add ``scale`` times the gradient of the weight to ``grad_weight``."""
    # The kernel reads the weight for the other gradients only.
    weight = torch.zeros_like(grad_weight)
    arguments = _arguments(input, weight, offset, size=map(size.get, _V1))
    grad_weight.add_(_backward(grad_output, arguments)[1], alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **size: int,
) -> None:
    """Write a deformable convolution, version 2, into ``output``.

    `Deformable ConvNets v2 <https://arxiv.org/abs/1811.11168>`_. Without a bias,
    ``bias`` is an empty tensor. Offset and mask may be larger than the output, as
    DyHead's are: see :func:`_as_read`.
    """
    offset, mask = (_as_read(t, output.shape[2:]) for t in (offset, mask))
    bias = bias if with_bias else None
    arguments = _arguments(input, weight, offset, mask, bias, size=map(size.get, _V2))
    output.copy_(torch.ops.torchvision.deform_conv2d(*arguments))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **size: int,
) -> None:
    """Write the gradients of version 2 into the five ``grad_*`` tensors.

    Without a bias, ``grad_bias`` is left alone.
    """
    shape = grad_output.shape[2:]
    offset, mask = (_as_read(t, shape) for t in (offset, mask))
    bias = bias if with_bias else None
    arguments = _arguments(input, weight, offset, mask, bias, size=map(size.get, _V2))
    grad_offset.zero_()
    grad_mask.zero_()
    grad_offset, grad_mask = (_as_read(t, shape) for t in (grad_offset, grad_mask))
    targets = (grad_input, grad_weight, grad_offset, grad_mask, grad_bias)
    gradients = _backward(grad_output, arguments)
    for target, gradient in zip(
        targets if with_bias else targets[:4], gradients, strict=False
    ):
        target.copy_(gradient)


def _as_read(tensor: Tensor, size: torch.Size) -> Tensor:
    """Return the values that MMCV reads of an offset or a mask.

    If it is larger than the output, MMCV takes each image's first values in memory.
    DyHead passes offsets of another feature level, and its weights are trained so.
    """
    if tensor.shape[2:] == size:
        return tensor
    channels, values = tensor.shape[1], tensor.shape[1] * size.numel()
    return tensor.view(len(tensor), -1)[:, :values].view(-1, channels, *size)


def _arguments(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    size: Iterable[int],
) -> list:
    """Return the arguments of torchvision's kernel and of its gradient."""
    if bias is None:
        bias = weight.new_zeros(weight.shape[0])
    use_mask = mask is not None
    if mask is None:
        mask = weight.new_zeros(len(input), 1)
    widened = [at_least_float32(t) for t in (input, weight, offset, mask, bias)]
    return [*widened, *size, use_mask]


def _backward(grad_output: Tensor, arguments: list) -> tuple[Tensor, ...]:
    """Compute the gradients of input, weight, offset, mask and bias."""
    return torch.ops.torchvision._deform_conv2d_backward(
        at_least_float32(grad_output), *arguments
    )
