import pytest
import torch
from mmcv.ops import (
    bbox_overlaps,
    modulated_deform_conv2d,
    nms,
    roi_align,
    roi_pool,
    sigmoid_focal_loss,
    soft_nms,
    softmax_focal_loss,
)
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

# Boxes have areas over 65504, the largest number in float16.
BOXES = torch.tensor([[0.0, 0, 400, 300], [8, 16, 404, 320], [700, 64, 999, 900]])
SCORES = torch.tensor([0.5, 0.75, 0.25])
ROIS = torch.tensor([[0, 1.25, 0.75, 9, 8.25], [1, -3.75, -2.25, 5.25, 29.5]])
TARGETS = torch.tensor([2, 0, 1, 3, 0, 1])
SHAPES = torch.tensor([[4, 4], [2, 2]])


def modulated(offset, x, mask, weight):
    """Under AMP the others may be in float32; MMCV takes the offset's type for all."""
    others = x.float(), mask.float(), weight.float()
    return modulated_deform_conv2d(others[0], offset, *others[1:], None, 1, 1)


def attention(value, locations, weights):
    shapes = SHAPES.to(value.device)
    starts = shapes.new_tensor([0, 16])
    return MultiScaleDeformableAttnFunction.apply(
        value, shapes, starts, locations.float(), weights.float(), 64
    )


def focal(loss):
    return lambda x: loss(x, TARGETS.to(x.device), 2.0, 0.25, None, "sum")


# Operators by name, with their arguments, or the shapes of random ones.
OPERATORS = {
    "bbox_overlaps": (bbox_overlaps, BOXES, BOXES),
    "nms": (lambda boxes, scores: nms(boxes, scores, 0.5)[0], BOXES, SCORES),
    "soft_nms": (lambda *boxes: soft_nms(*boxes)[0], BOXES, SCORES),
    "roi_align": (lambda x, rois: roi_align(x, rois, 2, 0.5), (2, 3, 6, 8), ROIS),
    "roi_align, max": (
        lambda x, rois: roi_align(x, rois, 2, 0.5, 0, "max"),
        (2, 3, 6, 8),
        ROIS,
    ),
    "roi_pool": (lambda x, rois: roi_pool(x, rois, 2, 0.5), (2, 3, 6, 8), ROIS),
    "modulated": (modulated, (2, 18, 5, 6), (2, 4, 5, 6), (2, 9, 5, 6), (8, 4, 3, 3)),
    "attention": (attention, (1, 20, 2, 4), (1, 3, 2, 2, 2, 2), (1, 3, 2, 2, 2)),
    "sigmoid_focal_loss": (focal(sigmoid_focal_loss), (6, 4)),
    "softmax_focal_loss": (focal(softmax_focal_loss), (6, 4)),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", OPERATORS)
def test_computed_in_float32_and_returned_in_the_type(name, dtype, ours, device):
    torch.manual_seed(0)
    operator, *inputs = OPERATORS[name]
    inputs = [t if isinstance(t, torch.Tensor) else torch.rand(t) for t in inputs]
    first, *others = (t.to(device, dtype) for t in inputs)
    result = operator(first.requires_grad_(name != "soft_nms"), *others)
    assert result.dtype == dtype
    expected = operator(*(t.detach().float() for t in (first, *others)))
    torch.testing.assert_close(result, expected.to(dtype))
    if result.requires_grad:
        result.sum().backward()
        assert first.grad.dtype == dtype
