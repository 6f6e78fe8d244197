import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
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


def test_value_and_gradients(device):
    value, shapes, starts, locations, weights = tensors(device)
    inputs = [t.requires_grad_() for t in (value, locations, weights)]

    def attend(value, locations, weights):
        return MultiScaleDeformableAttnFunction.apply(
            value, shapes, starts, locations, weights, 64
        )

    expected = multi_scale_deformable_attn_pytorch(value, SHAPES, locations, weights)
    torch.testing.assert_close(attend(*inputs), expected)
    assert gradcheck(attend, inputs, fast_mode=True, nondet_tol=1e-9)
