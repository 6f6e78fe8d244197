"""Seeded calls of MMCV's operators, to be run on two MMCVs and compared.

As a program it runs them on the MMCV of the interpreter that runs it, and writes
the results to the file named. It needs no ghostdet.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import mmcv.ops
import torch
from torch import Tensor

Cases = Iterator[Callable[[], list[Tensor]]]


def random_boxes(count: int) -> Tensor:
    corner, size = torch.rand(2, count, 2)
    return torch.cat([corner * 400, corner * 400 + size * 120 + 1], dim=1)


def integer_boxes(count: int) -> Tensor:
    """Boxes with IoUs that are simple fractions, often exactly the threshold."""
    corner = torch.randint(0, 6, (count, 2))
    return torch.cat([corner, corner + torch.randint(1, 11, (count, 2))], 1).float()


def scored_boxes(ties: bool) -> Iterator[tuple[Tensor, Tensor]]:
    for count in (0, 1, 7, 300, 1500):
        scores = torch.randperm(count) / max(count, 1)
        if ties:
            scores = (scores * 20).ceil() / 20
        yield random_boxes(count), scores
        yield integer_boxes(count), scores


def nms() -> Cases:
    # MMCV's sort is not stable: which of two equal scores comes first is undefined.
    for boxes, scores in scored_boxes(ties=False):
        for threshold, offset in product((0.1, 0.3, 0.5, 0.7), (0, 1)):
            yield partial(mmcv.ops.nms, boxes, scores, threshold, offset)


def softnms() -> Cases:
    for boxes, scores in scored_boxes(ties=True):
        options = product((0.3, 0.5), (1e-3, 0.2), ("naive", "linear", "gaussian"))
        for (threshold, lowest, method), offset in product(options, (0, 1)):
            arguments = threshold, 0.5, lowest, method, offset
            yield partial(mmcv.ops.soft_nms, boxes, scores, *arguments)


def nms_match() -> Cases:
    for boxes, scores in scored_boxes(ties=False):
        dets = torch.cat([boxes, scores[:, None]], dim=1)
        for threshold in (0.3, 0.5, 0.7):
            yield partial(mmcv.ops.nms_match, dets, threshold)


def bbox_overlaps() -> Cases:
    for boxes, count in product((random_boxes, integer_boxes), (0, 1, 50)):
        for arguments in product(("iou", "iof"), (True, False), (0, 1)):
            inputs = boxes(count), boxes(count), *arguments
            yield lambda inputs=inputs: [mmcv.ops.bbox_overlaps(*inputs)]


def with_gradients(operator: Callable, inputs: list, *arguments) -> list[Tensor]:
    """An operator's result, and the gradients of its inputs for some weighting."""
    inputs = [t if t is None else t.clone().requires_grad_() for t in inputs]
    result = operator(*inputs, *arguments)
    weighting = torch.linspace(-1, 1, result.numel()).view_as(result).to(result)
    result.backward(weighting)
    return [result.detach(), *(t.grad for t in inputs if t is not None)]


def roi_align() -> Cases:
    for count, dtype in product((0, 1, 40), (torch.float32, torch.float64)):
        x = torch.randn(2, 5, 21, 30, dtype=dtype)
        boxes = random_boxes(count).to(dtype) * 1.3 - 30  # some outside the map
        rois = torch.cat([torch.arange(count)[:, None] % 2, boxes], dim=1)
        for arguments in product(
            (7, (3, 5)), (1 / 16, 7 / 64), (0, 2), ("avg", "max"), (True, False)
        ):
            yield partial(with_gradients, mmcv.ops.roi_align, [x], rois, *arguments)


# kernel, stride, padding, dilation, groups, deformable groups
GEOMETRIES = [
    ((3, 3), 1, 1, 1, 1, 1),
    ((3, 3), 2, 1, 1, 2, 1),
    ((3, 3), 1, 2, 2, 1, 4),
    ((3, 2), (2, 1), (0, 2), (1, 2), 4, 2),
    ((1, 5), (1, 3), (1, 2), 1, 2, 2),
    ((1, 1), 1, 0, 1, 1, 8),
]


def deformable() -> Iterator[tuple[list[Tensor], tuple]]:
    for geometry, batch, dtype in product(
        GEOMETRIES, (1, 4), (torch.float32, torch.float64)
    ):
        (kh, kw), *arguments, groups, deform_groups = geometry
        x = torch.randn(batch, 8, 9, 12, dtype=dtype)
        weight = torch.randn(16, 8 // groups, kh, kw, dtype=dtype)
        bias = torch.randn(16, dtype=dtype)
        plain = torch.nn.functional.conv2d(x, weight, None, *arguments, groups)
        points, size = deform_groups * kh * kw, plain.shape[2:]
        offset = torch.randn(batch, 2 * points, *size, dtype=dtype) * 2
        mask = torch.rand(batch, points, *size, dtype=dtype)
        yield [x, offset, mask, weight, bias], geometry[1:]


def deform_conv() -> Cases:
    operator = mmcv.ops.deform_conv2d
    for (x, offset, _, weight, _), geometry in deformable():
        for step in (32, 1):  # images at a time
            arguments = *geometry, False, step
            yield partial(with_gradients, operator, [x, offset, weight], *arguments)


def modulated_deform_conv() -> Cases:
    run = partial(with_gradients, mmcv.ops.modulated_deform_conv2d)
    for inputs, geometry in deformable():
        for bias in (inputs[4], None):
            yield partial(run, [*inputs[:4], bias], *geometry)
    # DyHead's offsets and masks are those of a larger pyramid level.
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(4, 4, 3, 3)
    both = torch.randn(2, 27, 16, 16)
    yield partial(run, [x, both[:, :18], both[:, 18:].sigmoid(), weight, None], 1, 1)


OPERATORS = (
    nms,
    softnms,
    nms_match,
    bbox_overlaps,
    roi_align,
    deform_conv,
    modulated_deform_conv,
)


def results() -> dict[str, list[list[Tensor]]]:
    """Results of every case, by operator."""
    found = {}
    for operator in OPERATORS:
        torch.manual_seed(0)
        found[operator.__name__] = [list(run()) for run in operator()]
    return found


if __name__ == "__main__":
    from mmcv import _ext

    print(_ext.__file__)
    torch.save(results(), sys.argv[1])
