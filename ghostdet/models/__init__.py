"""Backbones, necks, layers and a classifier, in MMDetection's ``MODELS``."""

from .cifar import CifarResNet, CifarVGG16
from .classifier import ClassificationHead, ImageClassifier
from .ghost import GhostBottleneck, GhostModule, compression_ratio, speed_up_ratio
from .ghostconv import GhostConv
from .ghostnet import GhostNet
from .ghostnetv2 import GhostNetV2
from .ghostnetv3 import GhostNetV3
from .ghostresnet import GhostResNet
from .mobilenetv2 import TappedMobileNetV2
from .mobilenetv3 import MobileNetV3
from .necks import GhostNetFPN, GhostPAN

__all__ = [
    "CifarResNet",
    "CifarVGG16",
    "ClassificationHead",
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
    "TappedMobileNetV2",
    "compression_ratio",
    "speed_up_ratio",
]
