"""Taking a trained detector away."""

from ghostdet.export.convert import export_module
from ghostdet.export.fuse import deploy

__all__ = ["deploy", "export_module"]
