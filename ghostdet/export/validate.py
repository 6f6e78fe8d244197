"""Comparison of an exported detector with the original."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ghostdet.errors import UserError
from ghostdet.runtime import Detector

SCORE_TOLERANCE = 1e-3
BOX_TOLERANCE = 0.1  # px
# Fraction of the boxes: rounding decides about IoUs next to the NMS threshold, and
# about the order of equal scores.
UNMATCHED_TOLERANCE = 0.01


def validate(exported: Detector, detector: nn.Module, images: Iterable[Tensor]) -> str:
    """Run both detectors on the same images.

    Args:
        exported: The exported detector.
        detector: The original, in evaluation mode and on the CPU.
        images: Batches of normalised images, float32 ``(N, 3, H, W)``.

    Returns:
        A report of the largest differences.

    Raises:
        UserError: If they differ by more than rounding.
    """
    shapes, differences = [], []
    for batch in images:
        shapes.append("x".join(map(str, batch.shape)))
        outputs = zip(*exported.infer(batch.contiguous().numpy()))
        differences += map(compare, _predict(detector, batch), outputs)
    boxes, unmatched, scores, distances = zip(*differences)
    report = (
        f"against PyTorch on {', '.join(shapes)}: {sum(boxes)} boxes, scores differ "
        f"by {max(scores):.1e} and boxes by {max(distances):.1e} px at most, "
        f"{sum(unmatched)} without a counterpart"
    )
    if (
        max(scores) > SCORE_TOLERANCE
        or max(distances) > BOX_TOLERANCE
        or sum(unmatched) > max(1, UNMATCHED_TOLERANCE * sum(boxes))
    ):
        raise UserError(
            "the exported model does not detect the same, so nothing was written: "
            f"{report} (allowed: {SCORE_TOLERANCE}, {BOX_TOLERANCE} px, one box in a "
            "hundred); try another version of PyTorch or of the runtime"
        )
    return report


def compare(
    expected: tuple[np.ndarray, ...], outputs: tuple[np.ndarray, ...]
) -> tuple[int, int, float, float]:
    """Compare the detections in one image, pair by pair, in any order.

    Args:
        expected: Boxes ``(K, 4)``, scores ``(K,)``, labels ``(K,)``.
        outputs: The same of the exported detector; rows with a score of 0 are empty.

    Returns:
        Number of expected boxes, number of boxes without a counterpart, and the largest
        differences of scores and of boxes (px) in a pair.
    """
    boxes, scores, labels = (output[outputs[1] > 0] for output in outputs)
    box = np.abs(expected[0][:, None] - boxes).max(-1, initial=0)
    score = np.abs(expected[1][:, None] - scores)
    other = expected[2][:, None] != labels
    cost = np.minimum(score / SCORE_TOLERANCE + box / BOX_TOLERANCE, 1e6)
    rows, columns = linear_sum_assignment(cost + 1e6 * other)
    # A pair of different objects counts as missing on both sides.
    same = ~other[rows, columns] & (box[rows, columns] < 10 * BOX_TOLERANCE)
    rows, columns = rows[same], columns[same]
    # At the lowest score, which score_thr or max_per_img sets, rounding decides.
    lowest = min((*expected[1], *scores), default=0) + SCORE_TOLERANCE
    unmatched = np.delete(expected[1], rows), np.delete(scores, columns)
    return (
        len(expected[1]),
        int((np.concatenate(unmatched) > lowest).sum()),
        score[rows, columns].max(initial=0),
        box[rows, columns].max(initial=0),
    )


@torch.no_grad()
def _predict(detector: nn.Module, images: Tensor) -> list[tuple[np.ndarray, ...]]:
    """Run MMDetection's ``predict``, with boxes in pixels of the images."""
    shape = tuple(images.shape[-2:])
    preprocessor = detector.data_preprocessor
    down, right = (-side % preprocessor.pad_size_divisor for side in shape)
    padded = F.pad(images, (0, right, 0, down), value=preprocessor.pad_value)
    meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=meta) for _ in images]
    found = [
        sample.pred_instances
        for sample in detector.predict(padded, samples, rescale=False)
    ]
    return [(f.bboxes.numpy(), f.scores.numpy(), f.labels.numpy()) for f in found]
