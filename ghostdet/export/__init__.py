"""Export of trained detectors to ONNX Runtime and OpenVINO."""

from ghostdet.export.convert import export_module
from ghostdet.export.fuse import fuse_for_inference

__all__ = ["fuse_for_inference", "export_module"]
