"""Hooks, in MMEngine's ``HOOKS``."""

from ghostdet.engine.hooks.checkpoint import SafeCheckpointHook
from ghostdet.engine.hooks.checkpoint_guard import CheckpointGuardHook
from ghostdet.engine.hooks.graceful_stop import GracefulStopHook

__all__ = ["CheckpointGuardHook", "SafeCheckpointHook", "GracefulStopHook"]
