"""Layers that the networks are made of."""

from ghostdet.models.layers.ghost_conv import GhostConv
from ghostdet.models.layers.ghost_module import (
    GhostBottleneck,
    GhostModule,
    compression_ratio,
    speed_up_ratio,
)

__all__ = [
    "GhostBottleneck",
    "GhostConv",
    "GhostModule",
    "compression_ratio",
    "speed_up_ratio",
]
