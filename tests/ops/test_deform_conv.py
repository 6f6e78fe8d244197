import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import deform_conv2d, modulated_deform_conv2d
from torch.autograd import gradcheck
from torchvision.ops import deform_conv2d as torchvision_deform_conv2d

# kernel, stride, padding, dilation, groups, deformable groups
GEOMETRIES = [
    ((3, 3), 1, 1, 1, 1, 1),
    ((3, 2), (2, 1), (0, 2), (1, 2), 2, 1),
    ((1, 3), (1, 2), (1, 0), 1, 1, 2),
    ((2, 2), 1, 1, 2, 4, 4),
]


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
    x, offset, mask, weight, bias = tensors(geometry, device)
    expected = torchvision_deform_conv2d(x, offset, weight, bias, *geometry[1:4], mask)
    result = modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry[1:])
    torch.testing.assert_close(result, expected)
    expected = torchvision_deform_conv2d(x, offset, weight, None, *geometry[1:4])
    result = deform_conv2d(x, offset, weight, *geometry[1:])
    torch.testing.assert_close(result, expected)


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
