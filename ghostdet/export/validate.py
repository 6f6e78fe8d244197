"""Is what was exported the detector it was exported from?"""

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
# Of the boxes. Rounding decides where an IoU is next to NMS's threshold, and which of
# two equal scores comes first.
UNMATCHED_TOLERANCE = 0.01


class Difference(NamedTuple):
    """Detections of two detectors, one against the other."""

    boxes: int  # of the reference
    unmatched: int  # of either that the other has not, at no score where these are cut
    score: float  # largest difference of a pair
    box: float  # largest difference of a pair, px


def validate(exported: Detector, detector: nn.Module, images: Iterable[Tensor]) -> str:
    """Run both on the same images.

    Args:
        exported: The one.
        detector: The other, in PyTorch and evaluation mode, on the CPU.
        images: Batches of normalised images, float32 ``(N, 3, H, W)``.

    Returns:
        What was compared and found.

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
            f"what was exported does not detect the same, so nothing was written: "
            f"{report} (allowed: {SCORE_TOLERANCE}, {BOX_TOLERANCE} px, one box in a "
            "hundred); try another version of PyTorch or of the runtime"
        )
    if not total.boxes:
        report += " (nothing was detected, so this says little)"
    return report


def compare(
    expected: tuple[np.ndarray, ...], outputs: tuple[np.ndarray, ...]
) -> Difference:
    """Compare detections in one image, pair by pair, whatever their order.

    Args:
        expected: Boxes ``(K, 4)``, scores ``(K,)``, labels ``(K,)``.
        outputs: The same of the other, with scores of 0 for none.
    """
    detected = outputs[1] > 0
    boxes, scores, labels = (output[detected] for output in outputs)
    box = np.abs(expected[0][:, None] - boxes).max(-1, initial=0)
    score = np.abs(expected[1][:, None] - scores)
    other = expected[2][:, None] != labels
    cost = np.minimum(score / SCORE_TOLERANCE + box / BOX_TOLERANCE, 1e6)
    rows, columns = linear_sum_assignment(cost + 1e6 * other)
    # Pairs of what is not the same object count as missing on both sides.
    same = ~other[rows, columns] & (box[rows, columns] < 10 * BOX_TOLERANCE)
    rows, columns = rows[same], columns[same]
    # Where both end, by score_thr or by max_per_img, rounding decides what is in.
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
    """What MMDetection predicts, boxes in pixels of the images."""
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
