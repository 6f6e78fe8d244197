"""Hooks, in MMEngine's ``HOOKS``."""

from ghostdet.engine.hooks.checkpoint import SafeCheckpointHook
from ghostdet.engine.hooks.checkpoint_guard import CheckpointGuardHook
from ghostdet.engine.hooks.graceful_stop import SurviveHook

__all__ = ["CheckpointGuardHook", "SafeCheckpointHook", "SurviveHook"]
