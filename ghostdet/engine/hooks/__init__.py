"""Hooks, in MMEngine's ``HOOKS``."""

from ghostdet.engine.hooks.checkpoint import SafeCheckpointHook
from ghostdet.engine.hooks.checkpoint_guard import CheckpointGuardHook
from ghostdet.engine.hooks.graceful_stop import GracefulStopHook
from ghostdet.engine.hooks.run_record import RunRecordHook

__all__ = [
    "CheckpointGuardHook",
    "GracefulStopHook",
    "RunRecordHook",
    "SafeCheckpointHook",
]
