import pytest
import torch
from mmcv.ops import bbox_overlaps
from torchvision.ops import box_area, box_iou

from .compiled_cases import random_boxes


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("mode", ["iou", "iof"])
def test_overlaps(mode, offset, device):
    torch.manual_seed(0)
    a, b = random_boxes(7).to(device), random_boxes(7).to(device)
    wide_a, wide_b = (torch.cat([x[:, :2], x[:, 2:] + offset], 1) for x in (a, b))
    expected = box_iou(wide_a, wide_b)
    if mode == "iof":  # from overlap / union
        area, other = box_area(wide_a)[:, None], box_area(wide_b)
        expected = expected / (1 + expected) * (area + other) / area
    result = bbox_overlaps(a, b, mode, aligned=False, offset=offset)
    torch.testing.assert_close(result, expected)
    result = bbox_overlaps(a, b, mode, aligned=True, offset=offset)
    torch.testing.assert_close(result, expected.diagonal())


@pytest.mark.parametrize("counts", [(0, 3), (3, 0), (0, 0)])
def test_overlaps_of_no_boxes(counts, device):
    a, b = (random_boxes(count).to(device) for count in counts)
    assert bbox_overlaps(a, b).shape == counts
