import pytest
import torch
import torchvision
from mmcv.ops import sigmoid_focal_loss, softmax_focal_loss
from torch.autograd import gradcheck

pytestmark = pytest.mark.usefixtures("not_on_cpu_in_mmcv")

CLASSES = 4
TARGETS = [0, 2, 3, 1, 2]


def logits(device):
    torch.manual_seed(0)
    x = torch.randn(len(TARGETS), CLASSES, dtype=torch.float64)
    return (3 * x).to(device).requires_grad_()


def slow_sigmoid(x, target, gamma, alpha, weights=1):
    """Torchvision's, to which a label of no class is negative for all of them."""
    one_hot = (target[:, None] == torch.arange(CLASSES, device=x.device)).to(x)
    loss = torchvision.ops.sigmoid_focal_loss(x, one_hot, alpha, gamma)
    return loss * torch.as_tensor(weights).view(-1, 1)


def slow_softmax(x, target, gamma, alpha, weights=1):
    p = x.softmax(1)[range(len(x)), target]
    return -weights * alpha * (1 - p) ** gamma * p.log()


SLOW = {sigmoid_focal_loss: slow_sigmoid, softmax_focal_loss: slow_softmax}


@pytest.fixture(params=[None, [0.5, 2.0, 1.0, 3.0]])
def weights(request, device):
    values = request.param
    return values and torch.tensor(values, device=device, dtype=torch.float64)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.7)])
@pytest.mark.parametrize("operator", SLOW)
def test_value_and_gradient(operator, gamma, alpha, weights, device):
    x, target = logits(device), torch.tensor(TARGETS, device=device)
    expected = SLOW[operator](x, target, gamma, alpha)
    if weights is not None:
        expected = SLOW[operator](x, target, gamma, alpha, weights[target])
    result = operator(x, target, gamma, alpha, weights, "none")
    torch.testing.assert_close(result, expected)
    result = operator(x, target, gamma, alpha, weights, "mean")
    torch.testing.assert_close(result, expected.sum() / len(TARGETS))
    assert gradcheck(operator, (x, target, gamma, alpha, weights, "sum"))


@pytest.mark.parametrize("target", [CLASSES, -1])
def test_background_is_negative_for_every_class(target, weights, ours, device):
    """And has no weight of a class."""
    x = logits(device)
    targets = torch.full((len(TARGETS),), target, device=device)
    result = sigmoid_focal_loss(x, targets, 2.0, 0.25, weights, "none")
    torch.testing.assert_close(result, slow_sigmoid(x, targets, 2.0, 0.25))


@pytest.mark.parametrize("target", [CLASSES, -1])
def test_softmax_ignores_what_is_no_class(weights, target, ours, device):
    x = logits(device)
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
