"""Training, testing, inference, checkpoints."""

from .accuracy import Accuracy
from .checkpoint import CheckpointGuardHook, read_checkpoint
from .complexity import complexity, complexity_table
from .config import load_config
from .evaluator import FastCocoMetric
from .infer import infer, load_detector
from .logging import log_to
from .model import load_model
from .preflight import preflight
from .run import test, train

__all__ = [
    "Accuracy",
    "CheckpointGuardHook",
    "FastCocoMetric",
    "complexity",
    "complexity_table",
    "infer",
    "load_config",
    "load_detector",
    "load_model",
    "log_to",
    "preflight",
    "read_checkpoint",
    "test",
    "train",
]
