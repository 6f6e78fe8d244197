"""ResNet of Ghost convolutions."""

from __future__ import annotations

from typing import Any

from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS


@MODELS.register_module()
class GhostResNet(ResNet):
    """MMDetection's ResNet with :class:`GhostConv` in its blocks.

    The paper's Ghost-ResNet-50. The 7x7 convolution stays an ordinary one, as in the
    official ``ghostnet_pytorch/ghost_resnet.py``, which has no BN in its blocks.

    Args:
        depth: Number of layers.
        ratio: ``s`` of the paper. 1 is the plain network.
        dw_kernel: ``d`` of the paper.
        **kwargs: Other arguments of MMDetection's ``ResNet``. To train from scratch,
            set ``norm_eval=False``: its default is for fine-tuning.

    Raises:
        ConfigError: If ``ratio`` or ``dw_kernel`` is not a usable integer.

    Example:
        >>> import torch
        >>> network = GhostResNet(50, ratio=4)
        >>> [tuple(maps.shape) for maps in network(torch.rand(1, 3, 64, 64))][::3]
        [(1, 256, 16, 16), (1, 2048, 2, 2)]
    """

    def __init__(
        self, depth: int, ratio: int = 2, dw_kernel: int = 3, **kwargs: Any
    ) -> None:
        conv_cfg = dict(type="GhostConv", ratio=ratio, dw_kernel=dw_kernel)
        super().__init__(depth, conv_cfg=conv_cfg, **kwargs)

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        conv_cfg, self.conv_cfg = self.conv_cfg, None
        super()._make_stem_layer(in_channels, stem_channels)
        self.conv_cfg = conv_cfg
