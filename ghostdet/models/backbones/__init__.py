"""Backbones, in MMDetection's ``MODELS``."""

from ghostdet.models.backbones.cifar import CifarResNet, CifarVGG16
from ghostdet.models.backbones.ghost_resnet import GhostResNet
from ghostdet.models.backbones.ghostnet import GhostNet
from ghostdet.models.backbones.ghostnetv2 import GhostNetV2
from ghostdet.models.backbones.ghostnetv3 import GhostNetV3
from ghostdet.models.backbones.mobilenetv3 import MobileNetV3

__all__ = [
    "CifarResNet",
    "CifarVGG16",
    "GhostNet",
    "GhostNetV2",
    "GhostNetV3",
    "GhostResNet",
    "MobileNetV3",
]
