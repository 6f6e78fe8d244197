import math

import pytest
import torch
from mmcv.ops import nms, nms_match, soft_nms
from torchvision.ops import box_iou

from .compiled_cases import integer_boxes, random_boxes


def scored(boxes, count, device="cpu"):
    torch.manual_seed(0)
    return boxes(count).to(device), (torch.randperm(count) / count).to(device)


def overlaps(boxes, offset=0):
    wide = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], 1)
    return box_iou(wide, wide).cpu()


def slow_nms(boxes, scores, threshold, offset=0):
    more = overlaps(boxes, offset) > threshold
    kept = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if not more[i, kept].any():
            kept.append(i)
    return kept


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("boxes", [random_boxes, integer_boxes])
def test_nms(boxes, threshold, offset, device):
    boxes, scores = scored(boxes, 60, device)
    dets, inds = nms(boxes, scores, threshold, offset)
    assert inds.tolist() == slow_nms(boxes, scores, threshold, offset)
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[inds])


@pytest.mark.parametrize("tenths", range(1, 10))
def test_nms_keeps_an_overlap_of_exactly_the_threshold(tenths):
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, tenths, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, tenths / 10)[1].tolist() == [0, 1]
    assert nms(boxes, scores, tenths / 10 - 0.01)[1].tolist() == [0]


def test_the_first_of_equal_scores_wins(ours, device):
    boxes, scores = scored(integer_boxes, 300, device)
    scores = (scores * 5).ceil() / 5
    expected = slow_nms(boxes, scores, 0.5)
    assert nms(boxes, scores, 0.5)[1].tolist() == expected
    groups = nms_match(torch.cat([boxes, scores[:, None]], 1), 0.5001)
    assert [group[0] for group in groups] == slow_nms(boxes, scores, 0.5001)


def slow_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    ious, left = overlaps(boxes, offset).tolist(), dict(enumerate(scores.tolist()))
    kept = []
    while left:
        best = max(left, key=left.get)
        kept.append((best, left.pop(best)))
        for i in list(left):
            overlap = ious[best][i]
            if method == "gaussian":
                left[i] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                left[i] *= 1 - overlap if method == "linear" else 0
            if left[i] < min_score:
                del left[i]
    return kept


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("min_score", [1e-3, 0.3])
def test_soft_nms(method, offset, min_score):
    boxes, scores = scored(random_boxes, 60)
    dets, inds = soft_nms(boxes, scores, 0.3, 0.5, min_score, method, offset)
    expected = slow_soft_nms(boxes, scores, 0.3, 0.5, min_score, method, offset)
    assert inds.tolist() == [i for i, _ in expected]
    assert torch.equal(dets[:, :4], boxes[inds])
    torch.testing.assert_close(dets[:, 4], torch.tensor([s for _, s in expected]))


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_nms_match(threshold):
    boxes, scores = scored(random_boxes, 60)
    groups = nms_match(torch.cat([boxes, scores[:, None]], 1), threshold)
    kept = slow_nms(boxes, scores, threshold)
    ious = overlaps(boxes)
    expected = {i: [i] for i in kept}
    for i in scores.argsort(descending=True).tolist():
        if i not in expected:
            suppressor = next(k for k in kept if ious[k, i] >= threshold)
            expected[suppressor].append(i)
    assert [group.tolist() for group in groups] == list(expected.values())


def test_no_boxes(device):
    boxes, scores = torch.zeros(0, 4, device=device), torch.zeros(0, device=device)
    for operator in (nms, soft_nms):
        dets, inds = operator(boxes, scores, 0.5)
        assert dets.shape == (0, 5) and inds.shape == (0,)
        assert inds.dtype == torch.int64
    assert nms_match(torch.zeros(0, 5, device=device), 0.5) == []
