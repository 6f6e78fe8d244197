"""Backbones, necks and layers, registered in MMDetection's ``MODELS``."""

from .ghost import GhostBottleneck, GhostModule
from .ghostnet import GhostNet
from .necks import GhostNetFPN

__all__ = ["GhostBottleneck", "GhostModule", "GhostNet", "GhostNetFPN"]
