"""The precision in which the operators compute."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Widen a half-precision or integer tensor, and leave float32 and float64.

    Under AMP tensors arrive in float16 or bfloat16. torchvision's CPU kernels do
    not take these, and box areas and sums overflow or lose digits in them.

    Args:
        tensor (Tensor): Any shape, any dtype.

    Returns:
        Tensor: The same shape in float32 or float64, the input itself where it
        already was.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
