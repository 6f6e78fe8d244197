"""Taking a trained detector away."""

from .convert import export_module
from .deploy import deploy
from .exported import ExportedDetector

__all__ = ["ExportedDetector", "deploy", "export_module"]
