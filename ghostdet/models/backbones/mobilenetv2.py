"""MobileNetV2 for the paper's table, fit for distributed training."""

from __future__ import annotations

from typing import Any

from mmdet.models import MobileNetV2
from mmdet.registry import MODELS


@MODELS.register_module()
class TappedMobileNetV2(MobileNetV2):
    """MMDetection's ``MobileNetV2`` without gradients for what is behind its last tap.

    MMDetection's builds its final convolution whatever ``out_indices`` are, and
    computes it. Where it is no output, its parameters get no gradient, for which
    ``DistributedDataParallel`` would wait. Here they ask for none. Weights and outputs
    are the same.

    Args:
        **kwargs: Those of :class:`mmdet.models.MobileNetV2`.

    Example:
        >>> network = TappedMobileNetV2(out_indices=(2, 4, 6))
        >>> any(p.requires_grad for p in network.conv2.parameters())
        False
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        last = max(self.out_indices)
        for name in self.layers[last + 1 :]:
            getattr(self, name).requires_grad_(False)
