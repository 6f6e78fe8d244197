"""Box overlaps, in the interface of ``mmcv._ext``."""

import torch
from torch import Tensor

from ghostdet.ops.precision import at_least_float32


def bbox_overlaps(
    bboxes1: Tensor,
    bboxes2: Tensor,
    ious: Tensor,
    mode: int,
    aligned: bool,
    offset: int,
) -> None:
    """Write the overlaps of two sets of ``(x1, y1, x2, y2)`` boxes into ``ious``.

    Args:
        bboxes1 (Tensor): ``(M, 4)``.
        bboxes2 (Tensor): ``(N, 4)``, ``M == N`` if ``aligned``.
        ious (Tensor): Overwritten. ``(M,)`` if ``aligned``, else ``(M, N)``.
        mode (int): 0 divides by the union (IoU), 1 by the area of ``bboxes1`` (IoF).
        aligned (bool): Whether to pair the boxes one to one.
        offset (int): A box is ``x2 - x1 + offset`` wide.
    """
    bboxes1, bboxes2 = at_least_float32(bboxes1), at_least_float32(bboxes2)
    if not aligned:
        bboxes1 = bboxes1[:, None]
    top_left = torch.maximum(bboxes1[..., :2], bboxes2[..., :2])
    bottom_right = torch.minimum(bboxes1[..., 2:], bboxes2[..., 2:])
    overlap = (bottom_right - top_left + offset).clamp(min=0).prod(-1)
    base, area2 = (
        (b[..., 2:] - b[..., :2] + offset).prod(-1) for b in (bboxes1, bboxes2)
    )
    if mode == 0:
        base = base + area2 - overlap
    ious.copy_(overlap / base)
