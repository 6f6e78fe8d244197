"""RoIAlign, in the interface of ``mmcv._ext``.

A region of interest is a row ``(batch index, x1, y1, x2, y2)``. It is divided into
``PH * PW`` bins, and each bin is sampled bilinearly on a grid. ``pool_mode`` 1 averages
the samples of a bin with torchvision's kernel, and 0 takes their maximum.
"""

import torch
import torchvision
from torch import Tensor

from ghostdet.ops.precision import at_least_float32


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool features inside regions of interest.

    Args:
        input (Tensor): Features, ``(B, C, H, W)``.
        rois (Tensor): ``(N, 5)``, in image coordinates.
        output (Tensor): ``(N, C, PH, PW)``, overwritten.
        argmax_y (Tensor): ``(N, C, PH, PW)``, overwritten if ``pool_mode`` is 0 with
            the row, in feature coordinates, of the largest sample; -1 where a bin
            has no sample.
        argmax_x (Tensor): The same for the column.
        aligned_height (int): ``PH``.
        aligned_width (int): ``PW``.
        spatial_scale (float): Feature coordinates over image coordinates.
        sampling_ratio (int): Samples along each side of a bin; 0 takes as many as
            the bin is long, rounded up.
        pool_mode (int): 0 maximum, 1 average.
        aligned (bool): Whether pixel centres, rather than corners, are at integers.
    """
    features = at_least_float32(input)
    rois = rois.to(features.dtype)
    bins = (aligned_height, aligned_width)
    if pool_mode == 1:
        output.copy_(
            torchvision.ops.roi_align(
                features, rois, bins, spatial_scale, sampling_ratio, aligned
            )
        )
        return
    output.zero_()
    argmax_y.fill_(-1)
    argmax_x.fill_(-1)
    start, bin_size = _bins(rois, bins, spatial_scale, aligned)
    if sampling_ratio > 0:
        grids = torch.full_like(bin_size, sampling_ratio)
    else:
        grids = bin_size.ceil()
    grids = grids.int()
    for grid in grids.unique(dim=0):
        if grid.min() <= 0:
            continue
        chosen = (grids == grid).all(dim=1).nonzero()[:, 0]
        values, y, x = _max_of_samples(
            features,
            rois[chosen],
            start[chosen],
            bin_size[chosen],
            bins,
            grid.tolist(),
            spatial_scale,
            aligned,
        )
        output[chosen] = values.to(output.dtype)
        argmax_y[chosen] = y.to(argmax_y.dtype)
        argmax_x[chosen] = x.to(argmax_x.dtype)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of :func:`roi_align_forward` into ``grad_input``.

    ``argmax_y`` and ``argmax_x`` are the forward pass's results.
    """
    grad = at_least_float32(grad_output)
    if pool_mode == 0:
        grad_input.copy_(
            _scatter_bilinearly(grad, rois[:, 0], argmax_y, argmax_x, grad_input.shape)
        )
        return
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad,
            rois.to(grad.dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def _bins(
    rois: Tensor, bins: tuple[int, int], spatial_scale: float, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Compute corners and bin sizes, both ``(N, 2)`` as ``(y, x)``, on the map."""
    corners = rois[:, [2, 1, 4, 3]] * spatial_scale - (0.5 if aligned else 0)
    start, end = corners.split(2, dim=1)
    size = end - start
    if not aligned:
        size = size.clamp(min=1)
    return start, size / size.new_tensor(bins)


def _max_of_samples(
    features: Tensor,
    rois: Tensor,
    start: Tensor,
    bin_size: Tensor,
    bins: tuple[int, int],
    grid: list[int],
    spatial_scale: float,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the largest samples and their y and x, all ``(N, C, PH, PW)``.

    All regions have one grid size. torchvision's kernel gives the samples, from bins
    as small as the grid with one sample each.
    """
    (rows, columns), (grid_y, grid_x) = bins, grid
    samples = torchvision.ops.roi_align(
        features, rois, (rows * grid_y, columns * grid_x), spatial_scale, 1, aligned
    )
    samples = samples.view(*samples.shape[:2], rows, grid_y, columns, grid_x)
    values, index = samples.transpose(3, 4).flatten(4).max(dim=-1)

    def position(axis: int, step: Tensor, count: int, per_bin: int) -> Tensor:
        shape = (-1, 1) if axis == 0 else (1, -1)
        bin_index = torch.arange(count, device=step.device).view(shape)
        fraction = bin_index + (step.to(start.dtype) + 0.5) / per_bin
        origin, size = (t[:, axis].view(-1, 1, 1, 1) for t in (start, bin_size))
        return origin + fraction * size

    y = position(0, index.div(grid_x, rounding_mode="floor"), rows, grid_y)
    x = position(1, index % grid_x, columns, grid_x)
    return values, y, x


def _scatter_bilinearly(
    grad: Tensor, batch: Tensor, y: Tensor, x: Tensor, shape: torch.Size
) -> Tensor:
    """Spread gradients ``(N, C, PH, PW)`` over the four pixels around y and x.

    ``batch`` ``(N,)`` has the images of the result ``(B, C, H, W)``; -1 is no sample.
    """
    _, channels, height, width = shape
    y, x = y.to(grad.dtype), x.to(grad.dtype)
    grad = grad * ((y > -1) & (y <= height) & (x >= -1) & (x <= width))
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    plane = batch.long().view(-1, 1) * channels + torch.arange(
        channels, device=grad.device
    )
    result = grad.new_zeros(shape.numel())
    for row, row_weight in ((top, top + 1 - y), (top + 1, y - top)):
        for column, column_weight in ((left, left + 1 - x), (left + 1, x - left)):
            # A corner outside the map has weight 0: clamping it changes nothing.
            pixel = row.clamp(max=height - 1) * width + column.clamp(max=width - 1)
            index = plane[..., None, None] * (height * width) + pixel.long()
            result.put_(index, grad * row_weight * column_weight, accumulate=True)
    return result.view(shape)
