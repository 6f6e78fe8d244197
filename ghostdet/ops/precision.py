"""The precision in which the operators compute."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Widen a half-precision or integer tensor, and leave float32 and float64.

    Under AMP tensors arrive in float16 or bfloat16, which torchvision's CPU kernels do
    not accept, and in which box areas and sums overflow or lose digits.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
