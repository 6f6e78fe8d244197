"""LightGFLHead, GFL's head with depthwise separable towers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mmcv.cnn import DepthwiseSeparableConvModule
from mmdet.models.utils import multi_apply
from mmdet.registry import MODELS
from torch import Tensor, nn

from ghostdet.errors import ConfigError
from ghostdet.models.dense_heads.two_phase_gfl_head import TwoPhaseGFLHead
from ghostdet.models.layers.ghost_module import BN, RELU, check_odd

# GFLHead's own initialisation, for its predictors alone: towers have MMCV's.
INIT = dict(
    type="Normal",
    override=[
        dict(type="Normal", name="gfl_cls", std=0.01, bias_prob=0.01),
        dict(type="Normal", name="gfl_reg", std=0.01),
    ],
)


@MODELS.register_module()
class LightGFLHead(TwoPhaseGFLHead):
    """GFL's head with one tower of depthwise separable convolutions for each level.

    Classification and regression share the tower, and are predicted by a 1x1
    convolution each, as in NanoDet-Plus (https://github.com/RangiLyu/nanodet). Losses,
    decoding and export are GFLHead's.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of each input.
        feat_channels: Channels of the towers.
        stacked_convs: Number of depthwise separable convolutions in a tower. Defaults
            to NanoDet-Plus's.
        kernel_size: Kernel of the depthwise convolutions. Defaults to NanoDet-Plus's.
        norm_cfg: Norm after each convolution of a tower.
        act_cfg: Activation after each convolution of a tower.
        init_cfg: MMEngine initialiser.
        kwargs: Other arguments of GFLHead, and of :class:`TwoPhaseGFLHead` in
            ``train_cfg``. Towers are built for the strides of ``anchor_generator``.

    Raises:
        ConfigError: If ``kernel_size`` is even or ``anchor_generator`` makes several
            anchors in a place, or in ``forward`` if inputs have another number of
            levels or channels.

    Example:
        >>> import torch
        >>> head = LightGFLHead(
        ...     num_classes=3,
        ...     in_channels=16,
        ...     feat_channels=16,
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
        feat_channels: int = 96,
        stacked_convs: int = 2,
        kernel_size: int = 5,
        norm_cfg: dict = BN,
        act_cfg: dict = RELU,
        init_cfg: dict | list | None = INIT,
        **kwargs: Any,
    ) -> None:
        check_odd(kernel_size=kernel_size)
        self.kernel_size, self.act_cfg = kernel_size, act_cfg
        super().__init__(
            num_classes,
            in_channels,
            feat_channels=feat_channels,
            stacked_convs=stacked_convs,
            norm_cfg=norm_cfg,
            init_cfg=init_cfg,
            **kwargs,
        )

    def _init_layers(self) -> None:
        """Build a tower and two predictors for each level."""
        anchors = self.prior_generator.num_base_priors
        if set(anchors) != {1}:
            raise ConfigError(
                f"anchor_generator makes {anchors} anchors in a place of its levels, "
                "expected 1; set ratios=[1.0], octave_base_scale=5, scales_per_octave=1"
            )
        channels = [self.in_channels, *[self.feat_channels] * self.stacked_convs]

        def tower() -> nn.Sequential:
            return nn.Sequential(
                *(
                    DepthwiseSeparableConvModule(
                        *pair,
                        self.kernel_size,
                        padding=self.kernel_size // 2,
                        conv_cfg=self.conv_cfg,
                        norm_cfg=self.norm_cfg,
                        act_cfg=self.act_cfg,
                    )
                    for pair in pairwise(channels)
                )
            )

        def predictor(out_channels: int) -> nn.Conv2d:
            return nn.Conv2d(channels[-1], out_channels, 1)

        sides = 4 * (self.reg_max + 1)
        self.towers = nn.ModuleList(tower() for _ in anchors)
        self.gfl_cls = nn.ModuleList(predictor(self.cls_out_channels) for _ in anchors)
        self.gfl_reg = nn.ModuleList(predictor(sides) for _ in anchors)

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
        if received != [self.in_channels] * len(self.towers):
            raise ConfigError(
                f"LightGFLHead expects {len(self.towers)} levels with "
                f"{self.in_channels} channels, one for each stride of its "
                f"anchor_generator, but received {len(received)} with {received}; let "
                "anchor_generator.strides and in_channels fit the neck's num_outs and "
                "out_channels"
            )
        return multi_apply(
            self.forward_single, x, self.towers, self.gfl_cls, self.gfl_reg
        )

    def forward_single(
        self, x: Tensor, tower: nn.Module, cls: nn.Module, reg: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """Predict on one level; see :meth:`forward` for shapes."""
        x = tower(x)
        return cls(x), reg(x).float()
