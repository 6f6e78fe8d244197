import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from torch.autograd import gradcheck

pytestmark = pytest.mark.usefixtures("not_on_cpu_in_mmcv")

SHAPES = [(4, 5), (2, 3)]
BATCH, QUERIES, HEADS, POINTS, DIM = 2, 3, 2, 2, 4


def tensors(device):
    """Value, shapes, level starts, locations and weights."""
    torch.manual_seed(0)
    options = dict(dtype=torch.float64)
    pixels = [height * width for height, width in SHAPES]
    value = torch.randn(BATCH, sum(pixels), HEADS, DIM, **options)
    locations = torch.rand(BATCH, QUERIES, HEADS, len(SHAPES), POINTS, 2, **options)
    weights = torch.rand(BATCH, QUERIES, HEADS, len(SHAPES), POINTS, **options)
    result = (value, torch.tensor(SHAPES), torch.tensor([0, pixels[0]]))
    return [t.to(device) for t in (*result, 1.4 * locations - 0.2, weights)]


def slow_attention(value, locations, weights):
    output = torch.zeros(BATCH, QUERIES, HEADS, DIM, dtype=value.dtype)
    for b, q, h, level, p in torch.ones(weights.shape).nonzero().tolist():
        height, width = SHAPES[level]
        begin = sum(rows * columns for rows, columns in SHAPES[:level])
        x, y = (locations[b, q, h, level, p] * torch.tensor([width, height])) - 0.5
        for row in (int(y.floor()), int(y.floor()) + 1):
            for column in (int(x.floor()), int(x.floor()) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - (y - row).abs()) * (1 - (x - column).abs())
                    pixel = value[b, begin + row * width + column, h]
                    output[b, q, h] += share * weights[b, q, h, level, p] * pixel
    return output.flatten(2)


def test_attention(device):
    value, shapes, starts, locations, weights = tensors(device)
    result = MultiScaleDeformableAttnFunction.apply(
        value, shapes, starts, locations, weights, 64
    )
    expected = slow_attention(*(t.cpu() for t in (value, locations, weights)))
    torch.testing.assert_close(result.cpu(), expected)


def test_gradients(device):
    value, shapes, starts, locations, weights = tensors(device)
    inputs = [t.requires_grad_() for t in (value, locations, weights)]

    def attend(value, locations, weights):
        return MultiScaleDeformableAttnFunction.apply(
            value, shapes, starts, locations, weights, 64
        )

    assert gradcheck(attend, inputs, fast_mode=True, nondet_tol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, ours, device):
    value, shapes, starts, locations, weights = tensors(device)
    value = value.to(dtype).requires_grad_()
    result = MultiScaleDeformableAttnFunction.apply(
        value, shapes, starts, locations, weights, 64
    )
    result.sum().backward()
    assert result.dtype == value.grad.dtype == dtype
