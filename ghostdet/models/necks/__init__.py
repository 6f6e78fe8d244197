"""Necks, in MMDetection's ``MODELS``."""

from ghostdet.models.necks.ghost_fpn import GhostNetFPN
from ghostdet.models.necks.ghost_pan import GhostPAN

__all__ = ["GhostNetFPN", "GhostPAN"]
