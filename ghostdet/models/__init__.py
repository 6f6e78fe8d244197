"""Backbones, necks, layers, a classifier and exported detectors, in ``MODELS``."""

from ghostdet.models.backbones import (
    CifarResNet,
    CifarVGG16,
    GhostNet,
    GhostNetV2,
    GhostNetV3,
    GhostResNet,
    MobileNetV3,
)
from ghostdet.models.classifier import ClassificationHead, ImageClassifier
from ghostdet.models.exported_detector import ExportedDetector
from ghostdet.models.layers import (
    GhostBottleneck,
    GhostConv,
    GhostModule,
)
from ghostdet.models.necks import GhostNetFPN, GhostPAN

__all__ = [
    "CifarResNet",
    "CifarVGG16",
    "ClassificationHead",
    "ExportedDetector",
    "GhostBottleneck",
    "GhostConv",
    "GhostModule",
    "GhostNet",
    "GhostNetFPN",
    "GhostNetV2",
    "GhostNetV3",
    "GhostPAN",
    "GhostResNet",
    "ImageClassifier",
    "MobileNetV3",
]
