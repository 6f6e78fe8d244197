"""LightGFLHead, GFL's head with one narrow 3x3 convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor, nn

from ghostdet.errors import ConfigError
from ghostdet.models.dense_heads.two_phase_gfl_head import TwoPhaseGFLHead

# The logits of a new head have the spread of a new GFLHead's, which has 0.01 in one
# layer.
INIT = dict(
    type="Kaiming",
    layer="Conv2d",
    override=[
        dict(type="Normal", name="gfl_cls", std=0.02, bias_prob=0.01),
        dict(type="Normal", name="gfl_reg", std=0.02),
    ],
)


@MODELS.register_module()
class LightGFLHead(TwoPhaseGFLHead):
    """GFL's head with one narrow 3x3 convolution, then 1x1 predictors.

    Without an activation between them, they are GFLHead's 3x3 predictors of a limited
    rank, ``feat_channels``. All levels share them. Losses, decoding and export are
    GFLHead's.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of each input.
        feat_channels: Channels of the 3x3 convolution.
        stacked_convs: Number of 3x3 convolutions in each of GFLHead's towers, after the
            narrow one. Their norm is GN with 32 groups, unless ``norm_cfg`` names
            another.
        init_cfg: MMEngine initialiser.
        kwargs: Other arguments of GFLHead, and of :class:`TwoPhaseGFLHead` in
            ``train_cfg``.

    Raises:
        ConfigError: In ``forward``, if inputs have another number of levels or
            channels.

    Example:
        >>> import torch
        >>> head = LightGFLHead(
        ...     num_classes=3,
        ...     in_channels=16,
        ...     reg_max=7,
        ...     anchor_generator=dict(type="AnchorGenerator", ratios=[1.0],
        ...         octave_base_scale=5, scales_per_octave=1, strides=[8, 16]),
        ...     loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True),
        ...     loss_bbox=dict(type="GIoULoss"))
        >>> cls_scores, bbox_preds = head([torch.rand(1, 16, s, s) for s in (8, 4)])
        >>> [tuple(x.shape) for x in cls_scores + bbox_preds]
        [(1, 3, 8, 8), (1, 3, 4, 4), (1, 32, 8, 8), (1, 32, 4, 4)]
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        feat_channels: int = 36,
        stacked_convs: int = 0,
        init_cfg: dict | list | None = INIT,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_classes,
            feat_channels,  # what follows the 3x3 convolution
            feat_channels=feat_channels,
            stacked_convs=stacked_convs,
            init_cfg=init_cfg,
            **kwargs,
        )
        self.in_channels = in_channels
        self.shared_conv = nn.Conv2d(
            in_channels, feat_channels, 3, padding=1, bias=False
        )

    def _init_layers(self) -> None:
        """Build GFLHead's layers, with 1x1 predictors."""
        super()._init_layers()
        for name in ("gfl_cls", "gfl_reg"):
            channels = getattr(self, name).out_channels
            setattr(self, name, nn.Conv2d(self.feat_channels, channels, 1))

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Predict on all levels.

        Args:
            x: One ``(N, in_channels, H / stride, W / stride)`` for each stride.

        Returns:
            Logits of classes, ``(N, num_classes, H / stride, W / stride)``, and of
            distances to the four sides, ``(N, 4 * (reg_max + 1), H / stride,
            W / stride)``, float32 in mixed precision too, of each level.
        """
        received = [feature.shape[1] for feature in x]
        if received != [self.in_channels] * len(self.scales):
            raise ConfigError(
                f"LightGFLHead expects {len(self.scales)} levels with "
                f"{self.in_channels} channels, one for each stride of its "
                f"anchor_generator, but received {len(received)} with {received}; let "
                "anchor_generator.strides and in_channels fit the neck's num_outs and "
                "out_channels"
            )
        return super().forward([self.shared_conv(feature) for feature in x])
