"""torchvision's MobileNetV3-Large as an MMDetection backbone.

"Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244; a row of the
GhostNet paper's COCO table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from mmdet.registry import MODELS
from torch import nn
from torchvision.models import mobilenet_v3_large

from ghostdet.models.backbones.base import BackboneBase, FeatureLevel


@MODELS.register_module()
class MobileNetV3(BackboneBase):
    """torchvision's MobileNetV3-Large without its classifier.

    Feature levels 0 to 3 are the last block at stride 4, 8, 16 and 32, level 4 is the
    final 1x1 convolution (stride 32). Parameter names are torchvision's, so its weights
    load unchanged.

    Args:
        widen_factor: Width of the network.
        out_indices: Feature levels to return, ascending.
        norm_cfg: Norm layers, with the paper's eps and momentum by default.
        **kwargs: Other arguments of :class:`BackboneBase`.

    Raises:
        ConfigError: If ``widen_factor``, ``out_indices`` or ``frozen_stages`` is out of
            range.

    Example:
        >>> import torch
        >>> model = MobileNetV3(out_indices=(1, 2, 3)).eval()
        >>> model.out_channels, model.out_strides
        ((40, 112, 160), (8, 16, 32))
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 224, 320))]
        [(1, 40, 28, 40), (1, 112, 14, 20), (1, 160, 7, 10)]
    """

    # The last block at each stride, as in GhostNet, then the final convolution.
    FEATURE_LEVELS = (
        FeatureLevel(2, 4, 24),
        FeatureLevel(5, 8, 40),
        FeatureLevel(11, 16, 112),
        FeatureLevel(14, 32, 160),
        FeatureLevel(15, 32, 960),
    )

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        *,
        norm_cfg: dict = dict(type="BN", eps=0.001, momentum=0.01),  # noqa: B006
        **kwargs: Any,
    ) -> None:
        super().__init__(widen_factor, out_indices, **kwargs)
        network = mobilenet_v3_large(
            width_mult=widen_factor,
            norm_layer=lambda channels: build_norm_layer(norm_cfg, channels)[1],
        )
        self.features = network.features[: self.level_blocks[-1] + 2]  # and the stem
        blocks = self.blocks
        self.out_channels = tuple(blocks[i].out_channels for i in self.level_blocks)
        self.freeze()

    @property
    def stem(self) -> nn.Sequential:
        """Layers before the blocks."""
        return self.features[:1]

    @property
    def blocks(self) -> nn.Sequential:
        """Blocks that ``FEATURE_LEVELS`` counts."""
        return self.features[1:]
