"""Backbones, necks, layers and a classifier, in MMDetection's ``MODELS``."""

from .classifier import ClassificationHead, ImageClassifier
from .ghost import GhostBottleneck, GhostModule
from .ghostconv import GhostConv
from .ghostnet import GhostNet
from .ghostnetv2 import GhostNetV2
from .ghostnetv3 import GhostNetV3
from .mobilenetv2 import TappedMobileNetV2
from .mobilenetv3 import MobileNetV3
from .necks import GhostNetFPN, GhostPAN

__all__ = [
    "ClassificationHead",
    "GhostBottleneck",
    "GhostConv",
    "GhostModule",
    "GhostNet",
    "GhostNetFPN",
    "GhostNetV2",
    "GhostNetV3",
    "GhostPAN",
    "ImageClassifier",
    "MobileNetV3",
    "TappedMobileNetV2",
]
