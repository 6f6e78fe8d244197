"""Fusion of layers for inference."""

from __future__ import annotations

import re
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ghostdet.errors import ConfigError
from ghostdet.export.split import SplitBottleneck, can_split


def fuse_for_inference(model: nn.Module) -> nn.Module:
    """Fold BN into convolutions, merge parallel branches, and split bottlenecks.

    Backbone, neck and heads are treated alike: BN is folded into the convolution before
    it, parallel branches of GhostNetV3 are merged, and Ghost bottlenecks become
    :class:`~ghostdet.export.split.SplitBottleneck`. Outputs change by rounding only. BN
    after a :class:`~ghostdet.models.GhostConv` stays, because that layer reads its own
    unscaled maps. The result can neither be trained nor load a checkpoint.

    Args:
        model: A detector, a classifier or a part of one, in evaluation mode. It is
            changed in place.

    Returns:
        The model. (Of a single bottleneck only the BN is folded.)

    Raises:
        ConfigError: If the model or a part of it is in training mode.

    Example:
        >>> from ghostdet.models import GhostNet
        >>> model = fuse_for_inference(GhostNet(0.5).eval())
        >>> any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
        False
    """
    if any(module.training for module in model.modules()):
        raise ConfigError("the model is in training mode; call model.eval() first")
    for module in list(model.modules()):
        if hasattr(module, "switch_to_deploy"):
            module.switch_to_deploy()
    for module in list(model.modules()):
        order = getattr(module, "order", ("conv", "norm"))  # of a ConvModule
        if ("conv", "norm") not in pairwise(order):
            continue
        # A convolution and its norm are neighbours and have the same number: in conv1,
        # conv2, bn1, bn2 the two in the middle do not belong together.
        in_turn = isinstance(module, nn.Sequential)
        for (name, conv), (norm_name, norm) in pairwise(list(module._modules.items())):
            numbers = {*re.findall(r"\d+$", name), *re.findall(r"\d+$", norm_name)}
            if _is_pair(conv, norm) and (in_turn or len(numbers) < 2):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if can_split(child):
                setattr(module, name, SplitBottleneck(child))
    model.eval()  # the new modules as well
    return model.requires_grad_(False)


def _is_pair(conv: nn.Module, norm: nn.Module) -> bool:
    return (
        type(conv) is nn.Conv2d
        and type(norm) in (nn.BatchNorm2d, nn.SyncBatchNorm)
        and norm.running_mean is not None
        and norm.num_features == conv.out_channels
    )
