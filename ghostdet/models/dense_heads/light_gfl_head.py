"""LightGFLHead, GFL's head with depthwise separable predictors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor, nn

from ghostdet.errors import ConfigError
from ghostdet.models.dense_heads.two_phase_gfl_head import TwoPhaseGFLHead
from ghostdet.models.layers.ghost_module import check_odd

# GFLHead's own initialisation, but for the predictors: 0.07 in both of their layers
# spreads the logits like 0.01 in GFLHead's one layer.
INIT = dict(
    type="Normal",
    layer="Conv2d",
    std=0.01,
    override=[
        dict(type="Normal", name="gfl_cls", std=0.07, bias_prob=0.01),
        dict(type="Normal", name="gfl_reg", std=0.07),
    ],
)


@MODELS.register_module()
class LightGFLHead(TwoPhaseGFLHead):
    """GFL's head whose predictors are depthwise separable.

    Each of the two is a depthwise and a 1x1 convolution without anything between,
    instead of a 3x3 convolution. They are shared by all levels, as in GFLHead. Losses,
    decoding and export are GFLHead's.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of each input.
        feat_channels: Channels of GFLHead's towers. Defaults to ``in_channels``.
        stacked_convs: Number of 3x3 convolutions in each tower.
        kernel_size: Kernel of the depthwise convolutions.
        init_cfg: MMEngine initialiser.
        kwargs: Other arguments of GFLHead, and of :class:`TwoPhaseGFLHead` in
            ``train_cfg``.

    Raises:
        ConfigError: If ``kernel_size`` is even or ``feat_channels`` has no effect, or
            in ``forward`` if inputs have another number of levels or channels.

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
        feat_channels: int | None = None,
        stacked_convs: int = 0,
        kernel_size: int = 5,
        init_cfg: dict | list | None = INIT,
        **kwargs: Any,
    ) -> None:
        check_odd(kernel_size=kernel_size)
        self.kernel_size = kernel_size
        feat_channels = feat_channels or in_channels
        if not stacked_convs and feat_channels != in_channels:
            raise ConfigError(
                f"feat_channels is {feat_channels} and in_channels {in_channels}, but "
                "without stacked_convs the head predicts from its inputs; leave out "
                "feat_channels, or set stacked_convs"
            )
        super().__init__(
            num_classes,
            in_channels,
            feat_channels=feat_channels,
            stacked_convs=stacked_convs,
            init_cfg=init_cfg,
            **kwargs,
        )

    def _init_layers(self) -> None:
        """Build GFLHead's layers, with separable predictors."""
        super()._init_layers()
        size = self.kernel_size

        def separable(conv: nn.Conv2d) -> nn.Sequential:
            inputs, outputs = conv.in_channels, conv.out_channels
            return nn.Sequential(
                nn.Conv2d(
                    inputs, inputs, size, padding=size // 2, groups=inputs, bias=False
                ),
                nn.Conv2d(inputs, outputs, 1),
            )

        self.gfl_cls = separable(self.gfl_cls)
        self.gfl_reg = separable(self.gfl_reg)

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
        return super().forward(x)
