"""Multi-scale deformable attention, in the interface of ``mmcv._ext``.

On the CPU, MMCV runs a version in plain PyTorch and never asks for these operators.
On the GPU it does, and gets the same version.

Shapes: value ``(B, sum(H * W), heads, D)``, spatial_shapes int64 ``(L, 2)`` as
``(H, W)``, sampling_locations ``(B, Q, heads, L, points, 2)`` as ``(x, y)`` in 0 to
1, attention_weights ``(B, Q, heads, L, points)``.
"""

import torch
from torch import Tensor

from ghostdet.ops.precision import at_least_float32


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Weighted sum of values sampled from several feature maps.

    `Deformable DETR <https://arxiv.org/abs/2010.04159>`_. Shapes are in the head of
    this file. ``level_start_index`` follows from ``spatial_shapes``, and
    ``im2col_step`` is for MMCV's kernel; neither is read.

    Returns:
        Tensor: ``(B, Q, heads * D)``, of the dtype of ``value``.
    """
    tensors = (value, sampling_locations, attention_weights)
    result = _attention(spatial_shapes, *map(at_least_float32, tensors))
    return result.to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of :func:`ms_deform_attn_forward`.

    Args:
        value (Tensor): As in the forward pass.
        spatial_shapes (Tensor): As in the forward pass.
        level_start_index (Tensor): Not read.
        sampling_locations (Tensor): As in the forward pass.
        attention_weights (Tensor): As in the forward pass.
        grad_output (Tensor): ``(B, Q, heads * D)``.
        grad_value (Tensor): Overwritten, of the shape of ``value``.
        grad_sampling_loc (Tensor): Overwritten, of that of ``sampling_locations``.
        grad_attn_weight (Tensor): Overwritten, of that of ``attention_weights``.
        im2col_step (int): Not read.
    """
    tensors = (value, sampling_locations, attention_weights)
    with torch.enable_grad():
        inputs = [at_least_float32(t).detach().requires_grad_() for t in tensors]
        result = _attention(spatial_shapes, *inputs)
    gradients = torch.autograd.grad(result, inputs, at_least_float32(grad_output))
    targets = (grad_value, grad_sampling_loc, grad_attn_weight)
    for target, gradient in zip(targets, gradients, strict=True):
        target.copy_(gradient)


def _attention(
    spatial_shapes: Tensor, value: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    """MMCV's version in plain PyTorch, with one transfer of the shapes to the host."""
    # mmcv.ops can be imported only once this package stands in for mmcv._ext.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    shapes = spatial_shapes.tolist()
    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
