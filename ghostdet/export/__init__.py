"""Taking a trained detector away."""

from .deploy import deploy
from .exported import ExportedDetector

__all__ = ["ExportedDetector", "deploy"]
