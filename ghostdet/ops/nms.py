"""Non-maximum suppression, in the interface of ``mmcv._ext``.

MMCV takes thresholds as C floats, which decides whether an overlap of exactly 0.3
exceeds a threshold of 0.3. So thresholds are rounded to float32 here too.
"""

import numpy as np
import torch
import torchvision
from torch import Tensor

from ghostdet.ops.precision import at_least_float32


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Keep the boxes that overlap no better one by more than a threshold.

    Runs torchvision's kernel, after widening the boxes by ``offset``.

    Args:
        boxes (Tensor): ``(N, 4)`` as ``(x1, y1, x2, y2)``.
        scores (Tensor): ``(N,)``.
        iou_threshold (float): Boxes with a larger IoU are suppressed.
        offset (int): A box is ``x2 - x1 + offset`` wide.

    Returns:
        Tensor: int64 ``(K,)``, indices of the kept boxes, best first. Boxes with the
        same score keep their order.
    """
    boxes = at_least_float32(boxes)
    if offset:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    return torchvision.ops.nms(
        boxes, scores.to(boxes.dtype), float(np.float32(iou_threshold))
    )


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes that overlap a better one, and drop the lowest.

    `Soft-NMS <https://arxiv.org/abs/1704.04503>`_ with MMCV's order of swaps, so that
    boxes of equal score come out in the same order.

    Args:
        boxes (Tensor): ``(N, 4)`` as ``(x1, y1, x2, y2)``, on the CPU.
        scores (Tensor): ``(N,)``, on the CPU.
        dets (Tensor): ``(N, 5)``, on the CPU. Its first ``K`` rows are overwritten
            with the kept boxes and their lowered scores, best first.
        iou_threshold (float): Least IoU for methods 0 and 1 to lower a score.
        sigma (float): For method 2, the width of the Gaussian.
        min_score (float): Boxes whose lowered score is below it are dropped.
        method (int): 0 naive (to zero), 1 linear, 2 Gaussian.
        offset (int): A box is ``x2 - x1 + offset`` wide.

    Returns:
        Tensor: int64 ``(K,)``, indices of the kept boxes, in the order of ``dets``.
    """
    rows = torch.cat([boxes, scores[:, None]], dim=1)
    rows = at_least_float32(rows.detach()).numpy().copy()
    inds = np.arange(len(rows))
    best = 0
    while best < len(rows):
        top = best + rows[best:, 4].argmax()
        rows[[best, top]] = rows[[top, best]]
        inds[[best, top]] = inds[[top, best]]

        rest = slice(best + 1, None)
        overlaps = _overlaps(rows[best], rows[rest], offset)
        if method == 2:
            rows[rest, 4] *= np.exp(-(overlaps * overlaps) / sigma)
        else:
            lowered = 1 - overlaps if method == 1 else np.zeros_like(overlaps)
            rows[rest, 4] *= np.where(overlaps >= iou_threshold, lowered, 1)

        kept = best + 1 + _order_of_kept(rows[rest, 4] >= min_score)
        kept = np.concatenate([np.arange(best + 1), kept])
        rows, inds = rows[kept], inds[kept]
        best += 1
    dets[: len(rows)] = torch.from_numpy(rows)
    return torch.from_numpy(inds)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group every suppressed box with the box that suppresses it.

    Args:
        dets (Tensor): ``(N, 5)`` as ``(x1, y1, x2, y2, score)``, on the CPU.
        iou_threshold (float): Boxes with this IoU or a larger one are suppressed.

    Returns:
        list[list[int]]: For every kept box, best first, its index, followed by the
        indices of the boxes it suppresses, best first.
    """
    rows = at_least_float32(dets).numpy()
    order = dets[:, 4].sort(descending=True, stable=True).indices.numpy()
    groups = []
    while len(order):
        best, rest = order[0], order[1:]
        suppressed = _overlaps(rows[best], rows[rest], offset=0) >= iou_threshold
        groups.append([int(best), *rest[suppressed].tolist()])
        order = rest[~suppressed]
    return groups


def _overlaps(box: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    """IoU, ``(N,)``, of one box with ``(N, 4+)`` others. Two empty boxes have 0."""
    sizes = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2])
    overlap = np.maximum(sizes + offset, 0).prod(-1)
    area = (box[2:4] - box[:2] + offset).prod()
    union = area + (others[:, 2:4] - others[:, :2] + offset).prod(-1) - overlap
    return np.divide(overlap, union, out=np.zeros_like(union), where=union != 0)


def _order_of_kept(keep: np.ndarray) -> np.ndarray:
    """Order the kept elements, by index, as if each gap were filled from the end."""
    total = int(keep.sum())
    order = np.arange(total)
    order[~keep[:total]] = total + np.flatnonzero(keep[total:])[::-1]
    return order
