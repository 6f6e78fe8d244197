import pytest
import torch
from mmcv.ops import bbox_overlaps


def overlap(a, b, mode, offset):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + offset, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + offset, 0)
    area_a = (a[2] - a[0] + offset) * (a[3] - a[1] + offset)
    area_b = (b[2] - b[0] + offset) * (b[3] - b[1] + offset)
    inter = width * height
    return inter / (area_a if mode == "iof" else area_a + area_b - inter)


def boxes(count, device, seed):
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, count, 2, generator=generator)
    return (torch.cat([corner, corner + size + 0.1], 1) * 20).to(device)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("mode", ["iou", "iof"])
def test_overlaps(mode, offset, device):
    a, b = boxes(7, device, 0), boxes(7, device, 1)
    expected = torch.tensor(
        [[overlap(x, y, mode, offset) for y in b.tolist()] for x in a.tolist()]
    )
    result = bbox_overlaps(a, b, mode, aligned=False, offset=offset).cpu()
    torch.testing.assert_close(result, expected)
    result = bbox_overlaps(a, b, mode, aligned=True, offset=offset).cpu()
    torch.testing.assert_close(result, expected.diagonal())


@pytest.mark.parametrize("counts", [(0, 3), (3, 0), (0, 0)])
def test_overlaps_of_no_boxes(counts, device):
    a, b = (boxes(count, device, 0) for count in counts)
    assert bbox_overlaps(a, b).shape == counts


def test_overlaps_in_half_precision(ours, device):
    a, b = boxes(5, device, 0) * 50, boxes(6, device, 1) * 50  # areas over 65504
    half = bbox_overlaps(a.half(), b.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), bbox_overlaps(a, b), atol=2e-3, rtol=0)
