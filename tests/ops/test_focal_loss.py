import math

import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import sigmoid_focal_loss, softmax_focal_loss
from torch.autograd import gradcheck

pytestmark = pytest.mark.usefixtures("not_on_cpu_in_mmcv")

CLASSES = 4
TARGETS = [0, 2, 3, 1, 2]
WEIGHTS = [0.5, 2.0, 1.0, 3.0]


def logits(device, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(TARGETS), CLASSES, generator=generator, dtype=torch.float64)
    return (3 * x).to(device, dtype).requires_grad_()


def slow_sigmoid(x, targets, gamma, alpha, weights=None):
    rows = []
    for row, target in zip(x.tolist(), targets, strict=True):
        losses = []
        for c, logit in enumerate(row):
            p = 1 / (1 + math.exp(-logit))
            if c == target:
                loss = -alpha * (1 - p) ** gamma * math.log(p)
            else:
                loss = -(1 - alpha) * p**gamma * math.log(1 - p)
            losses.append(loss * (weights[target] if weights else 1))
        rows.append(losses)
    return torch.tensor(rows, dtype=torch.float64)


def slow_softmax(x, targets, gamma, alpha, weights=None):
    losses = []
    for row, target in zip(x.tolist(), targets, strict=True):
        p = math.exp(row[target]) / sum(map(math.exp, row))
        loss = -alpha * (1 - p) ** gamma * math.log(p)
        losses.append(loss * (weights[target] if weights else 1))
    return torch.tensor(losses, dtype=torch.float64)


SLOW = {sigmoid_focal_loss: slow_sigmoid, softmax_focal_loss: slow_softmax}


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.7)])
@pytest.mark.parametrize("operator", SLOW)
class TestBothLosses:
    def test_value(self, operator, gamma, alpha, weights, device):
        x = logits(device)
        target = torch.tensor(TARGETS, device=device)
        expected = SLOW[operator](x, TARGETS, gamma, alpha, weights)
        if weights:
            weights = torch.tensor(weights, device=device, dtype=x.dtype)
        result = operator(x, target, gamma, alpha, weights, "none")
        torch.testing.assert_close(result.cpu(), expected)
        result = operator(x, target, gamma, alpha, weights, "mean")
        torch.testing.assert_close(result.cpu(), expected.sum() / len(TARGETS))

    def test_gradient(self, operator, gamma, alpha, weights, device):
        target = torch.tensor(TARGETS, device=device)
        x = logits(device)
        if weights:
            weights = torch.tensor(weights, device=device, dtype=x.dtype)
        assert gradcheck(operator, (x, target, gamma, alpha, weights, "sum"))


def test_without_focus_it_is_cross_entropy(device):
    x, target = logits(device), torch.tensor(TARGETS, device=device)
    result = sigmoid_focal_loss(x, target, 0.0, 0.5, None, "sum")
    one_hot = F.one_hot(target, CLASSES).to(x.dtype)
    expected = F.binary_cross_entropy_with_logits(x, one_hot, reduction="sum") / 2
    torch.testing.assert_close(result, expected)
    result = softmax_focal_loss(x, target, 0.0, 1.0, None, "mean")
    torch.testing.assert_close(result, F.cross_entropy(x, target))


@pytest.mark.parametrize("target", [CLASSES, -1])
def test_background_is_negative_for_every_class(target, device):
    x = logits(device)
    targets = torch.full((len(TARGETS),), target, device=device)
    result = sigmoid_focal_loss(x, targets, 2.0, 0.25, None, "none")
    expected = slow_sigmoid(x, targets.tolist(), 2.0, 0.25)
    torch.testing.assert_close(result.cpu(), expected)


@pytest.mark.parametrize("target", [CLASSES, -1])
def test_background_has_weight_one(target, ours, device):
    x = logits(device)
    targets = torch.full((len(TARGETS),), target, device=device)
    weight = torch.tensor(WEIGHTS, device=device, dtype=x.dtype)
    with_weight = sigmoid_focal_loss(x, targets, 2.0, 0.25, weight, "sum")
    assert with_weight == sigmoid_focal_loss(x, targets, 2.0, 0.25, None, "sum")


@pytest.mark.parametrize("target", [CLASSES, -1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_softmax_ignores_what_is_no_class(weights, target, ours, device):
    x = logits(device)
    if weights:
        weights = torch.tensor(weights, device=device, dtype=x.dtype)
    targets = torch.tensor([*TARGETS[:-1], target], device=device)
    loss = softmax_focal_loss(x, targets, 2.0, 0.25, weights, "sum")
    loss.backward()
    kept = softmax_focal_loss(x[:-1], targets[:-1], 2.0, 0.25, weights, "sum")
    torch.testing.assert_close(loss, kept)
    assert not x.grad[-1].any() and x.grad[:-1].all()


@pytest.mark.parametrize("operator", SLOW)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_certainty_is_finite(operator, gamma, ours, device):
    x = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], device=device)
    target = torch.tensor([0, 0], device=device)
    loss = operator(x.requires_grad_(), target, gamma, 0.25, None, "sum")
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("operator", SLOW)
def test_half_precision(operator, dtype, ours, device):
    x, target = logits(device, dtype), torch.tensor(TARGETS, device=device)
    x = x.detach().requires_grad_()
    loss = operator(x, target, 2.0, 0.25, None, "sum")
    loss.backward()
    assert loss.dtype == x.grad.dtype == dtype
    expected = SLOW[operator](x, TARGETS, 2.0, 0.25).sum()
    torch.testing.assert_close(loss.double().cpu(), expected, rtol=0.03, atol=0.03)


def test_no_rows(ours, device):
    # MMCV's softmax_focal_loss takes a maximum first, which no rows do not have.
    x = torch.zeros(0, CLASSES, device=device, requires_grad=True)
    target = torch.zeros(0, dtype=torch.long, device=device)
    sigmoid_focal_loss(x, target, 2.0, 0.25, None, "sum").backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("operator", SLOW)
def test_a_label_of_too_many_classes_is_refused(operator, ours, device):
    target = torch.tensor([0, 1, 2, 3, CLASSES + 1], device=device)
    with pytest.raises(ValueError, match="largest target is 5.*num_classes"):
        operator(logits(device), target)
