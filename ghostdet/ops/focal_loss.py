"""Focal losses, in the interface of ``mmcv._ext``.

`Focal Loss for Dense Object Detection <https://arxiv.org/abs/1708.02002>`_.

Logarithms are clamped at the smallest normal float32, as in MMCV. The target of a row
selects its class weight. If the target is not a class (background, ``C``, or ignored,
negative), MMCV reads past the end of the weights; here the weight is 1.

Shapes: input ``(N, C)``; target int64 ``(N,)``; weight ``(C,)``, or empty for none.
``gamma`` is the exponent that reduces the loss of easy examples, and ``alpha`` the
factor of the positives.
"""

import torch
from torch import Tensor

from ghostdet.ops.precision import at_least_float32

_TINY = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the focal loss of independent classes into ``output``, ``(N, C)``.

    ``input`` has logits. A target outside ``0 .. C - 1`` makes every class of the row a
    negative. The factor of negatives is ``1 - alpha``.

    Raises:
        ValueError: If a target is larger than ``C``.
    """
    _check_target(target, input.shape[1])
    p = at_least_float32(input).sigmoid()
    positive = -alpha * (1 - p).pow(gamma) * _log(p)
    negative = -(1 - alpha) * p.pow(gamma) * _log(1 - p)
    loss = torch.where(_is_target(target, p), positive, negative)
    output.copy_(loss * _row_weight(weight, target)[:, None])


def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivative of each loss by its logit into ``grad_input``."""
    p = at_least_float32(input).sigmoid()
    positive = -alpha * (1 - p).pow(gamma) * (1 - p - gamma * p * _log(p))
    negative = -(1 - alpha) * p.pow(gamma) * (gamma * (1 - p) * _log(1 - p) - p)
    grad = torch.where(_is_target(target, p), positive, negative)
    grad_input.copy_(grad * _row_weight(weight, target)[:, None])


def softmax_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the focal loss of exclusive classes into ``output``, ``(N,)``.

    ``input`` has probabilities, after the softmax. A target outside ``0 .. C - 1`` has
    no loss.

    Raises:
        ValueError: If a target is larger than ``C``.
    """
    _check_target(target, input.shape[1])
    p = _target_probability(at_least_float32(input), target)
    loss = -alpha * (1 - p).pow(gamma) * _log(p)
    output.copy_(loss * _row_weight(weight, target))


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivative of each loss by the row's logits into ``grad_input``.

    ``buff``, ``(N,)``, gets the derivative by the logarithm of the target's
    probability.
    """
    softmax = at_least_float32(input)
    p = _target_probability(softmax, target)
    # The clamp keeps 0 * infinity out where p is 1 and gamma below 1.
    slope = gamma * (1 - p).clamp(min=_TINY).pow(gamma - 1) * p * _log(p)
    derivative = alpha * (slope - (1 - p).pow(gamma)) * _row_weight(weight, target)
    derivative = derivative * _is_class(target, softmax.shape[1])
    buff.copy_(derivative)
    is_target = _is_target(target, softmax).to(softmax.dtype)
    grad_input.copy_(derivative[:, None] * (is_target - softmax))


def _check_target(target: Tensor, num_classes: int) -> None:
    """Raise if a target is larger than the number of classes."""
    if target.numel() and target.max() > num_classes:
        raise ValueError(
            f"The largest target is {int(target.max())}, and predictions have "
            f"{num_classes} classes: targets may be 0 to {num_classes - 1}, and "
            f"{num_classes} for background. Set the head's `num_classes` to the "
            "dataset's number of classes."
        )


def _log(p: Tensor) -> Tensor:
    """Logarithm with MMCV's clamp."""
    return p.clamp(min=_TINY).log()


def _is_class(target: Tensor, num_classes: int) -> Tensor:
    """Mask of the targets that are neither background nor ignored, bool ``(N,)``."""
    return (target >= 0) & (target < num_classes)


def _is_target(target: Tensor, scores: Tensor) -> Tensor:
    """Mask of the class that is its row's target, bool ``(N, C)``."""
    classes = torch.arange(scores.shape[1], device=scores.device)
    return target[:, None] == classes


def _target_probability(softmax: Tensor, target: Tensor) -> Tensor:
    """Probability of the target, ``(N,)``; 1, without a loss, if it is not a class."""
    num_classes = softmax.shape[1]
    index = target.clamp(0, num_classes - 1)
    p = softmax.gather(1, index[:, None])[:, 0]
    return torch.where(_is_class(target, num_classes), p, 1.0)


def _row_weight(weight: Tensor, target: Tensor) -> Tensor:
    """Weight of each row by its target, ``(N,)``."""
    if weight.numel() == 0:
        return torch.ones((), device=target.device).expand(target.shape)
    row_weight = at_least_float32(weight)[target.clamp(0, len(weight) - 1)]
    return torch.where(_is_class(target, len(weight)), row_weight, 1.0)
