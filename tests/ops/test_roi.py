import math

import pytest
import torch
from mmcv.ops import roi_align, roi_pool
from torch.autograd import gradcheck

SHAPE = (2, 3, 6, 8)
ROIS = torch.tensor(
    [
        [0, 1.3, 0.7, 9.1, 8.2],
        [1, -3.7, -2.2, 5.3, 29.4],  # beyond the map on three sides
        [1, 4.2, 4.4, 4.9, 5.3],  # smaller than a pixel
        [0, 30.0, 30.0, 40.0, 40.0],  # outside
    ],
    dtype=torch.float64,
)


def features(dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SHAPE, generator=generator, dtype=torch.float64).to(
        device, dtype
    )


def bilinear(plane, y, x):
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    value = 0.0
    for row, row_weight in ((top, top + 1 - y), (top + 1, y - top)):
        for column, column_weight in ((left, left + 1 - x), (left + 1, x - left)):
            if row_weight * column_weight:
                value += row_weight * column_weight * plane[row, column].item()
    return value


def slow_roi_align(x, rois, size, scale, ratio, mode, aligned):
    output = torch.zeros(len(rois), x.shape[1], *size, dtype=torch.float64)
    for n, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (c * scale - (0.5 if aligned else 0) for c in corners)
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        bin_h, bin_w = height / size[0], width / size[1]
        grid_h, grid_w = ratio or math.ceil(bin_h), ratio or math.ceil(bin_w)
        for c in range(x.shape[1]):
            for i in range(size[0]):
                for j in range(size[1]):
                    samples = [
                        bilinear(
                            x[int(image), c],
                            y1 + (i + (p + 0.5) / grid_h) * bin_h,
                            x1 + (j + (q + 0.5) / grid_w) * bin_w,
                        )
                        for p in range(grid_h)
                        for q in range(grid_w)
                    ]
                    output[n, c, i, j] = (
                        max(samples) if mode == "max" else sum(samples) / len(samples)
                    )
    return output


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align(mode, aligned, ratio, device):
    arguments = ((2, 3), 0.5, ratio, mode, aligned)
    expected = slow_roi_align(features(), ROIS, *arguments)
    for dtype in (torch.float64, torch.float32):
        result = roi_align(
            features(dtype, device), ROIS.to(device, dtype), *arguments
        ).cpu()
        torch.testing.assert_close(result, expected.to(dtype))


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_gradient_of_roi_align(mode, aligned, ratio, device):
    x = features(device=device)[:, :2, :5, :5].contiguous().requires_grad_()
    arguments = (ROIS.to(device), (2, 2), 0.5, ratio, mode, aligned)
    # The GPU adds the gradients of a pixel in any order.
    assert gradcheck(roi_align, (x, *arguments), nondet_tol=1e-9)


def test_a_bin_without_samples_is_zero(ours, device):
    x = features(torch.float32, device).requires_grad_()
    rois = torch.tensor([[0.0, 2, 2, 2, 5]], device=device)  # no width
    result = roi_align(x, rois, 2, 1.0, 0, "max", True)
    result.sum().backward()
    assert not result.any() and not x.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_in_half_precision(ours, mode, dtype, device):
    x, rois = features(dtype, device).requires_grad_(), ROIS.to(device, dtype)
    result = roi_align(x, rois, 2, 0.5, 0, mode)
    result.sum().backward()
    assert result.dtype == x.grad.dtype == dtype
    expected = roi_align(x.detach().float(), rois.float(), 2, 0.5, 0, mode)
    torch.testing.assert_close(result, expected.to(dtype))


@pytest.mark.parametrize("operator", [roi_align, roi_pool])
def test_views(operator, ours, device):
    x, rois = features(torch.float32, device), ROIS.float().to(device)
    expected = operator(x, rois, (2, 3), 0.5)
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    result = operator(last, rois.t().contiguous().t(), (2, 3), 0.5)
    torch.testing.assert_close(result, expected)
    result.transpose(2, 3).sum().backward()
    assert last.grad.abs().sum() > 0


def slow_roi_pool(x, rois, size, scale):
    output = torch.zeros(len(rois), x.shape[1], *size, dtype=x.dtype)
    height, width = x.shape[2:]
    for n, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        bin_h = (y2 + 1 - y1) * scale / size[0]
        bin_w = (x2 + 1 - x1) * scale / size[1]
        if bin_h <= 0 or bin_w <= 0:
            continue
        for i in range(size[0]):
            top = max(math.floor(i * bin_h + y1 * scale), 0)
            bottom = min(math.ceil((i + 1) * bin_h + y1 * scale), height)
            for j in range(size[1]):
                left = max(math.floor(j * bin_w + x1 * scale), 0)
                right = min(math.ceil((j + 1) * bin_w + x1 * scale), width)
                if bottom > top and right > left:
                    window = x[int(image), :, top:bottom, left:right]
                    output[n, :, i, j] = window.amax((1, 2))
    return output


@pytest.mark.usefixtures("not_on_cpu_in_mmcv")
class TestRoIPool:
    def test_result(self, device):
        malformed = torch.tensor([[0, 5.0, 5, 2, 2]], dtype=torch.float64)
        rois = torch.cat([ROIS, malformed])
        for dtype in (torch.float64, torch.float32):
            expected = slow_roi_pool(features(dtype), rois, (2, 3), 0.5)
            x = features(dtype, device)
            result = roi_pool(x, rois.to(device, dtype), (2, 3), 0.5).cpu()
            assert torch.equal(result, expected)

    def test_gradient(self, device):
        x = features(device=device)[:, :2].requires_grad_()
        assert gradcheck(roi_pool, (x, ROIS.to(device), 2, 0.5), nondet_tol=1e-9)

    def test_the_first_of_equal_pixels_gets_the_gradient(self, device):
        x = torch.ones(1, 1, 4, 4, device=device, requires_grad=True)
        rois = torch.tensor([[0.0, 0, 0, 3, 3]], device=device)
        roi_pool(x, rois, 2).sum().backward()
        expected = torch.zeros(4, 4)
        expected[::2, ::2] = 1
        assert torch.equal(x.grad[0, 0].cpu(), expected)

    def test_malformed_regions_have_no_gradient(self, ours, device):
        x = features(torch.float32, device).requires_grad_()
        rois = torch.tensor([[0.0, 5, 5, 2, 2]], device=device)
        roi_pool(x, rois, 2).sum().backward()
        assert not x.grad.any()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, ours, dtype, device):
        x = features(dtype, device).requires_grad_()
        result = roi_pool(x, ROIS.to(device, dtype), 2, 0.5)
        result.sum().backward()
        assert result.dtype == x.grad.dtype == dtype


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_of_no_regions(mode, device):
    x = features(torch.float32, device).requires_grad_()
    result = roi_align(x, torch.zeros(0, 5, device=device), 2, 0.5, 0, mode)
    assert result.shape == (0, 3, 2, 2)
    result.sum().backward()
    assert not x.grad.any()


def test_roi_pool_of_no_regions(not_on_cpu_in_mmcv, ours, device):
    x = features(torch.float32, device).requires_grad_()
    result = roi_pool(x, torch.zeros(0, 5, device=device), 2, 0.5)
    assert result.shape == (0, 3, 2, 2)
    result.sum().backward()
    assert not x.grad.any()
