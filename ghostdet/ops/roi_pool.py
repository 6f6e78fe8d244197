"""RoIPool, in the interface of ``mmcv._ext``.

torchvision's kernel rounds regions of interest to pixels and MMCV's does not, so this
one consists of tensor operations.
"""

import torch
from torch import Tensor

from ghostdet.ops.precision import at_least_float32


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Take the maximum of the features in each bin of each region of interest.

    Args:
        input (Tensor): Features, ``(B, C, H, W)``.
        rois (Tensor): ``(N, 5)`` as ``(batch index, x1, y1, x2, y2)``, in image
            coordinates, the last pixel included.
        output (Tensor): ``(N, C, PH, PW)``, overwritten; 0 for a bin without pixels.
        argmax (Tensor): int32 ``(N, C, PH, PW)``, overwritten with ``y * W + x`` of
            the maximum; -1 for a bin without pixels.
        pooled_height (int): ``PH``.
        pooled_width (int): ``PW``.
        spatial_scale (float): Feature coordinates over image coordinates.
    """
    features = at_least_float32(input)
    rois = rois.to(features.dtype)
    height, width = features.shape[2:]
    start = rois[:, 1:3] * spatial_scale
    size = (rois[:, 3:5] + 1) * spatial_scale - start
    left, right = _edges(start[:, 0], size[:, 0], pooled_width, width)
    top, bottom = _edges(start[:, 1], size[:, 1], pooled_height, height)
    valid = (size > 0).all(dim=1).tolist()
    for i, image in enumerate(rois[:, 0].long().tolist()):
        if not valid[i]:
            output[i], argmax[i] = 0, -1
            continue
        # Columns first, rows second: of equal pixels the first in reading order wins.
        values, column = _max_in_windows(features[image], left[i], right[i])
        values, row = _max_in_windows(values.transpose(1, 2), top[i], bottom[i])
        values, row = values.transpose(1, 2), row.transpose(1, 2)
        index = row * width + column.gather(1, row)
        empty = values == -torch.inf
        output[i] = values.masked_fill(empty, 0).to(output.dtype)
        argmax[i] = index.masked_fill(empty, -1).to(argmax.dtype)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the gradient of :func:`roi_pool_forward` into ``grad_input``."""
    grad = at_least_float32(grad_output)
    _, channels, height, width = grad_input.shape
    plane = rois[:, 0].long().view(-1, 1) * channels + torch.arange(
        channels, device=grad.device
    )
    index = plane[..., None, None] * (height * width) + argmax.clamp(min=0)
    result = grad.new_zeros(grad_input.numel())
    result.put_(index, grad * (argmax >= 0), accumulate=True)
    grad_input.copy_(result.view(grad_input.shape))


def _edges(start: Tensor, size: Tensor, bins: int, limit: int) -> tuple[Tensor, Tensor]:
    """Compute each bin's first pixel and its end, both int64 ``(N, bins)``."""
    step = (size / bins)[:, None]
    index = torch.arange(bins, device=start.device)
    first = (index * step + start[:, None]).floor()
    last = ((index + 1) * step + start[:, None]).ceil()
    return first.clamp(0, limit).long(), last.clamp(0, limit).long()


def _max_in_windows(x: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Find the maxima of ``x`` ``(C, L, W)`` in windows of the last axis, and where.

    Windows ``(P,)`` end before ``last``. An empty one has ``-inf``.
    """
    longest = max(int((last - first).max()), 1)
    index = first[:, None] + torch.arange(longest, device=x.device)
    outside = index >= last[:, None]
    index = index.clamp(max=x.shape[-1] - 1)
    values, step = x[..., index].masked_fill(outside, -torch.inf).max(dim=-1)
    return values, index[:, 0] + step
