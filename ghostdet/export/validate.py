"""Comparison of an exported detector with the original."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

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


class Difference(NamedTuple):
    """Difference between the detections of two detectors."""

    boxes: int  # number of boxes of the reference
    unmatched: int  # number of boxes that only one of the two has
    score: float  # largest difference in a pair
    box: float  # largest difference in a pair, px


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
    shapes, found = [], []
    for batch in images:
        shapes.append("x".join(map(str, batch.shape)))
        reference = _predict(detector, batch)
        outputs = exported.infer(batch.contiguous().numpy())
        for index, expected in enumerate(reference):
            found.append(compare(expected, [output[index] for output in outputs]))
    boxes, unmatched, score, box = zip(*found)
    total = Difference(sum(boxes), sum(unmatched), max(score), max(box))
    report = (
        f"against PyTorch on {', '.join(shapes)}: {total.boxes} boxes, scores differ "
        f"by {total.score:.1e} and boxes by {total.box:.1e} px at most"
    )
    if total.unmatched:
        report += f"; {total.unmatched} box(es) in one of them only"
    if (
        total.score > SCORE_TOLERANCE
        or total.box > BOX_TOLERANCE
        or total.unmatched > max(1, UNMATCHED_TOLERANCE * total.boxes)
    ):
        raise UserError(
            "the exported model does not detect the same, so nothing was written: "
            f"{report} (allowed: {SCORE_TOLERANCE}, {BOX_TOLERANCE} px, one box in a "
            "hundred); try another version of PyTorch or of the runtime"
        )
    if not total.boxes:
        report += " (nothing was detected, so this proves little)"
    return report


def compare(
    expected: tuple[np.ndarray, ...], outputs: tuple[np.ndarray, ...]
) -> Difference:
    """Compare the detections in one image, pair by pair, in any order.

    Args:
        expected: Boxes ``(K, 4)``, scores ``(K,)``, labels ``(K,)``.
        outputs: The same of the exported detector; rows with a score of 0 are empty.
    """
    detected = outputs[1] > 0
    boxes, scores, labels = (output[detected] for output in outputs)
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
    unmatched = sum(
        (np.delete(one, index) > lowest).sum()
        for one, index in ((expected[1], rows), (scores, columns))
    )
    return Difference(
        len(expected[1]),
        int(unmatched),
        float(score[rows, columns].max(initial=0)),
        float(box[rows, columns].max(initial=0)),
    )


@torch.no_grad()
def _predict(detector: nn.Module, images: Tensor) -> list[tuple[np.ndarray, ...]]:
    """Run MMDetection's ``predict``, with boxes in pixels of the images."""
    shape = tuple(images.shape[-2:])
    preprocessor = detector.data_preprocessor
    missing = [-side % preprocessor.pad_size_divisor for side in shape]
    padded = F.pad(images, (0, missing[1], 0, missing[0]), value=preprocessor.pad_value)
    meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
    samples = detector.predict(
        padded, [DetDataSample(metainfo=meta) for _ in images], rescale=False
    )
    return [
        tuple(
            getattr(sample.pred_instances, name).numpy()
            for name in ("bboxes", "scores", "labels")
        )
        for sample in samples
    ]
