import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import deform_conv2d, modulated_deform_conv2d
from torch.autograd import gradcheck

# kernel, stride, padding, dilation, groups, deformable groups
GEOMETRIES = [
    ((3, 3), 1, 1, 1, 1, 1),
    ((3, 2), (2, 1), (0, 2), (1, 2), 2, 1),
    ((1, 3), (1, 2), (1, 0), 1, 1, 2),
    ((2, 2), 1, 1, 2, 4, 4),
]


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def tensors(geometry, device="cpu", dtype=torch.float64, batch=2):
    """Input, offset, mask, weight and bias."""
    (kh, kw), stride, padding, dilation, groups, deform_groups = geometry
    torch.manual_seed(0)
    x = torch.randn(batch, 4, 7, 6, dtype=torch.float64)
    weight = torch.randn(8, 4 // groups, kh, kw, dtype=torch.float64)
    bias = torch.randn(8, dtype=torch.float64)
    size = F.conv2d(x, weight, None, stride, padding, dilation, groups).shape[2:]
    points = deform_groups * kh * kw
    offset = torch.randn(batch, 2 * points, *size, dtype=torch.float64) * 1.5
    mask = torch.rand(batch, points, *size, dtype=torch.float64)
    return [t.to(device, dtype) for t in (x, offset, mask, weight, bias)]


def slow_deform_conv(x, offset, mask, weight, bias, geometry):
    """Sample a stack of shifted images with grid_sample, then multiply and add."""
    (kh, kw), stride, padding, dilation, groups, deform_groups = geometry
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    batch, channels, height, width = x.shape
    out_h, out_w = offset.shape[2:]
    offset = offset.view(batch, deform_groups, kh, kw, 2, out_h, out_w)
    mask = mask.view(batch, deform_groups, kh, kw, out_h, out_w)
    columns = x.new_zeros(batch, channels, kh, kw, out_h, out_w)
    share = channels // deform_groups
    for g in range(deform_groups):
        part = slice(g * share, (g + 1) * share)
        for i in range(kh):
            for j in range(kw):
                dy, dx = offset[:, g, i, j].unbind(1)
                y = torch.arange(out_h)[:, None] * sh - ph + i * dh + dy
                z = torch.arange(out_w) * sw - pw + j * dw + dx
                grid = torch.stack(
                    [(2 * z + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1
                )
                sampled = F.grid_sample(x[:, part], grid, align_corners=False)
                columns[:, part, i, j] = sampled * mask[:, g, i, j][:, None]
    columns = columns.view(batch, groups, channels // groups, kh, kw, out_h, out_w)
    weight = weight.view(groups, -1, *weight.shape[1:])
    result = torch.einsum("bgcijhw,gocij->bgohw", columns, weight)
    return result.reshape(batch, -1, out_h, out_w) + bias[:, None, None]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_without_offset_it_is_a_convolution(geometry, device):
    x, offset, mask, weight, bias = tensors(geometry, device)
    offset, mask = torch.zeros_like(offset), torch.ones_like(mask)
    expected = F.conv2d(x, weight, bias, *geometry[1:5])
    result = modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry[1:])
    torch.testing.assert_close(result, expected)
    result = deform_conv2d(x, offset, weight, *geometry[1:])
    torch.testing.assert_close(result, expected - bias[:, None, None])


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_with_offset(geometry, device):
    x, offset, mask, weight, bias = tensors(geometry)
    expected = slow_deform_conv(x, offset, mask, weight, bias, geometry)
    inputs = [t.to(device) for t in (x, offset, mask, weight, bias)]
    result = modulated_deform_conv2d(*inputs, *geometry[1:])
    torch.testing.assert_close(result.cpu(), expected)
    ones, zeros = torch.ones_like(mask), torch.zeros_like(bias)
    expected = slow_deform_conv(x, offset, ones, weight, zeros, geometry)
    result = deform_conv2d(*(inputs[i] for i in (0, 1, 3)), *geometry[1:])
    torch.testing.assert_close(result.cpu(), expected)


@pytest.mark.parametrize("geometry", GEOMETRIES[1:3])
def test_gradients(geometry, device):
    inputs = tensors(geometry, device)
    x, offset, mask, weight, bias = (t.requires_grad_() for t in inputs)

    def plain(x, offset, weight):
        return deform_conv2d(x, offset, weight, *geometry[1:])

    def modulated(x, offset, mask, weight, bias):
        return modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry[1:])

    options = dict(fast_mode=True, nondet_tol=1e-9)
    assert gradcheck(plain, (x, offset, weight), **options)
    assert gradcheck(modulated, (x, offset, mask, weight, bias), **options)
    assert gradcheck(modulated, (x, offset, mask, weight, None), **options)


def test_more_images_than_mmcv_unfolds_at_a_time(device):
    x, offset, _, weight, _ = tensors(GEOMETRIES[0], device, batch=4)
    expected = deform_conv2d(x, offset, weight, *GEOMETRIES[0][1:])
    result = deform_conv2d(x, offset, weight, *GEOMETRIES[0][1:], False, 2)
    torch.testing.assert_close(result, expected)


def test_views(ours, device):
    inputs = tensors(GEOMETRIES[0], device)
    expected = modulated_deform_conv2d(*inputs, *GEOMETRIES[0][1:])
    views = [t.transpose(0, -1).contiguous().transpose(0, -1) for t in inputs]
    result = modulated_deform_conv2d(*views, *GEOMETRIES[0][1:])
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(ours, dtype, device):
    # MMCV takes the dtype of the offset for all, as AMP leaves the weight in float32.
    x, offset, mask, weight, bias = tensors(GEOMETRIES[1], device, torch.float32)
    offset = offset.to(dtype)
    weight.requires_grad_()
    result = modulated_deform_conv2d(x, offset, mask, weight, bias, *GEOMETRIES[1][1:])
    result.sum().backward()
    assert result.dtype == dtype and weight.grad.dtype == torch.float32
    expected = modulated_deform_conv2d(
        x, offset.float(), mask, weight, bias, *GEOMETRIES[1][1:]
    )
    torch.testing.assert_close(result.float(), expected, atol=0.2, rtol=0.02)
