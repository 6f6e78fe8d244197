"""Layers that the networks are made of."""

from ghostdet.models.layers.ghost_conv import GhostConv
from ghostdet.models.layers.ghost_module import (
    GhostBottleneck,
    GhostModule,
)

__all__ = [
    "GhostBottleneck",
    "GhostConv",
    "GhostModule",
]
