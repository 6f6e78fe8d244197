import math

import pytest
import torch
import torch.nn.functional as F
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


def sample(x, y, z):
    """Features at rows y and columns z, clamped to the map, or 0 far outside."""
    height, width = x.shape[1:]
    y, z = torch.meshgrid(y, z, indexing="ij")
    inside = (y >= -1) & (y <= height) & (z >= -1) & (z <= width)
    grid = torch.stack([2 * z / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
    options = dict(padding_mode="border", align_corners=True)
    return F.grid_sample(x[None], grid[None], **options)[0] * inside


def slow_roi_align(x, rois, size, scale, ratio, mode, aligned):
    outputs = []
    for image, *corners in rois.tolist():
        x1, y1, x2, y2 = (c * scale - (0.5 if aligned else 0) for c in corners)
        axes = []
        for start, end, count in ((y1, y2, size[0]), (x1, x2, size[1])):
            length = (end - start if aligned else max(end - start, 1)) / count
            grid = ratio or math.ceil(length)
            positions = torch.arange(count * grid, dtype=x.dtype) + 0.5
            axes.append((start + positions / grid * length, grid))
        (y, rows), (z, columns) = axes
        pool = F.max_pool2d if mode == "max" else F.avg_pool2d
        outputs.append(pool(sample(x[int(image)], y, z), (rows, columns)))
    return torch.stack(outputs)


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


@pytest.mark.parametrize("operator", [roi_align, roi_pool])
def test_no_regions(operator, ours, device):
    x = features(torch.float32, device).requires_grad_()
    result = operator(x, torch.zeros(0, 5, device=device), 2, 0.5)
    assert result.shape == (0, 3, 2, 2)
    result.sum().backward()
    assert not x.grad.any()
