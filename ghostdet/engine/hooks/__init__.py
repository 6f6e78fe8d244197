"""Hooks, in MMEngine's ``HOOKS``."""

from ghostdet.engine.hooks.checkpoint import (
    ResumableEarlyStoppingHook,
    SafeCheckpointHook,
)
from ghostdet.engine.hooks.checkpoint_guard import CheckpointGuardHook
from ghostdet.engine.hooks.compile import CompileHook
from ghostdet.engine.hooks.graceful_stop import GracefulStopHook
from ghostdet.engine.hooks.run_record import RunRecordHook
from ghostdet.engine.hooks.visualization import FolderVisualizationHook

__all__ = [
    "CheckpointGuardHook",
    "CompileHook",
    "FolderVisualizationHook",
    "GracefulStopHook",
    "ResumableEarlyStoppingHook",
    "RunRecordHook",
    "SafeCheckpointHook",
]
