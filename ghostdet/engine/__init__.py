"""Loops, hooks and processes of a training run."""

from ghostdet.engine import distributed, loops
from ghostdet.engine.hooks import CheckpointGuardHook
from ghostdet.engine.vis_backends import log_to

__all__ = ["CheckpointGuardHook", "distributed", "log_to", "loops"]
