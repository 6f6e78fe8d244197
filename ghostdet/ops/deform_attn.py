"""Multi-scale deformable attention, in the interface of ``mmcv._ext``.

On the CPU, MMCV runs a version in plain PyTorch. On the GPU it asks for these
operators, which run the same version.

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

    `Deformable DETR <https://arxiv.org/abs/2010.04159>`_. The module's docstring has
    the shapes. ``level_start_index`` and ``im2col_step`` are not read.

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

    ``grad_value``, ``grad_sampling_loc`` and ``grad_attn_weight`` are overwritten and
    have the shapes of the forward pass's inputs.
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
    """Run MMCV's version in plain PyTorch, with the shapes on the host."""
    # mmcv.ops can be imported only after this package has replaced mmcv._ext.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    shapes = spatial_shapes.tolist()
    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
