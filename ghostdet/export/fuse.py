"""The form of a detector that inference needs, and no more."""

from __future__ import annotations

import re
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ghostdet.errors import ConfigError
from ghostdet.export.split import SplitBottleneck, can_split


def fuse_for_inference(model: nn.Module) -> nn.Module:
    """Fold BN into the convolutions in front of it, merge branches, spare copies.

    In the whole model, backbone, neck and heads alike: BN is folded, parallel branches
    of GhostNetV3 are merged, and Ghost bottlenecks become
    :class:`~ghostdet.export.split.SplitBottleneck`. Outputs stay the same but for
    rounding. BN behind a :class:`~ghostdet.models.GhostConv` stays, which reads its own
    unscaled maps. For good: the result can neither be trained nor filled with a
    checkpoint.

    Args:
        model: A detector, a classifier or a part of one, in evaluation mode; changed
            in place.

    Returns:
        The model (a bottleneck itself is changed no further than its BN).

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
        # Where one feeds the other, they are neighbours by name as well; of conv1,
        # conv2, bn1, bn2 the middle ones are not. A module may be there twice.
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
