"""VGG-16 and ResNet for images of 32x32, plain or with Ghost modules.

The networks in the GhostNet paper's CIFAR-10 tables. The first convolution is always an
ordinary one: "We did not touch the 1st conv in our experiments"
(https://github.com/TingsongYu/ghostnet_cifar10/issues/1).
"""

from __future__ import annotations

import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ghostdet.errors import ConfigError
from ghostdet.models.layers.ghost_module import GhostModule


@MODELS.register_module()
class CifarVGG16(BaseModule):
    """The 13 convolutions of VGG-16 with BN, for small images.

    Configuration D of https://arxiv.org/abs/1409.1556 without its linear layers.

    Args:
        ratio: ``s`` of the GhostNet paper. 1 is the plain network.
        dw_kernel: ``d`` of the GhostNet paper.
        init_cfg: MMEngine initialiser.

    Raises:
        ConfigError: If ``ratio`` or ``dw_kernel`` is not a usable integer.

    Example:
        >>> import torch
        >>> (maps,) = CifarVGG16(ratio=2).eval()(torch.rand(2, 3, 32, 32))
        >>> maps.shape
        torch.Size([2, 512, 1, 1])
    """

    # Channels of the convolutions between two poolings.
    _STAGES = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)

    def __init__(
        self, ratio: int = 1, dw_kernel: int = 3, init_cfg: dict | list | None = None
    ) -> None:
        super().__init__(init_cfg)
        layers: list[nn.Module] = []
        channels = 3
        for stage in self._STAGES:
            for out_channels in stage:
                s = ratio if layers else 1
                layers.append(GhostModule(channels, out_channels, 3, s, dw_kernel))
                channels = out_channels
            # Rounded up, so that an image smaller than 32 px leaves a pixel.
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Run the network.

        Args:
            x: Images ``(N, 3, H, W)``, floating point.

        Returns:
            One map, ``(N, 512, H / 32, W / 32)``, sizes rounded up.
        """
        return (self.layers(x),)


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters, option A."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        ratio: int,
        dw_kernel: int,
    ) -> None:
        super().__init__()
        ghost = dict(ratio=ratio, dw_kernel=dw_kernel)
        self.stride = stride
        self.padding = out_channels - in_channels
        self.conv1 = GhostModule(in_channels, out_channels, 3, stride=stride, **ghost)
        self.conv2 = GhostModule(out_channels, out_channels, 3, act_cfg=None, **ghost)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(x))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.padding))
        return F.relu(out + shortcut)


@MODELS.register_module()
class CifarResNet(BaseModule):
    """ResNet of 6n + 2 layers for small images.

    Section 4.2 of https://arxiv.org/abs/1512.03385: a convolution to 16 channels, then
    three stages of n blocks with 16, 32 and 64 channels. Shortcuts have no parameters
    (option A): they take every second pixel, and new channels are zeros.

    Args:
        depth: Number of layers, 6n + 2, the classifier's linear layer included.
        ratio: ``s`` of the GhostNet paper. 1 is the plain network.
        dw_kernel: ``d`` of the GhostNet paper.
        init_cfg: MMEngine initialiser.

    Raises:
        ConfigError: If ``depth`` is not of the form 6n + 2, or ``ratio`` or
            ``dw_kernel`` is not a usable integer.

    Example:
        >>> import torch
        >>> (maps,) = CifarResNet(depth=20).eval()(torch.rand(2, 3, 32, 32))
        >>> maps.shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        depth: int = 56,
        ratio: int = 1,
        dw_kernel: int = 3,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        count, rest = divmod(depth - 2, 6)
        if count < 1 or rest:
            raise ConfigError(
                f"depth is {depth!r}, expected 6n + 2, such as 20, 56 or 110"
            )
        self.stem = GhostModule(3, 16, 3, ratio=1)
        blocks = []
        channels = 16
        for out_channels in (16, 32, 64):
            for _ in range(count):
                stride = 1 if out_channels == channels else 2
                blocks.append(_Block(channels, out_channels, stride, ratio, dw_kernel))
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Run the network.

        Args:
            x: Images ``(N, 3, H, W)``, floating point.

        Returns:
            One map, ``(N, 64, H / 4, W / 4)``, sizes rounded up.
        """
        return (self.blocks(self.stem(x)),)
