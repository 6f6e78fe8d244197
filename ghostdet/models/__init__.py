"""Backbones, necks, heads, layers, classifier and exported detectors in ``MODELS``."""

from ghostdet.models.backbones.cifar import CifarResNet, CifarVGG16
from ghostdet.models.backbones.ghost_resnet import GhostResNet
from ghostdet.models.backbones.ghostnet import GhostNet
from ghostdet.models.backbones.ghostnetv2 import GhostNetV2
from ghostdet.models.backbones.ghostnetv3 import GhostNetV3
from ghostdet.models.backbones.mobilenetv3 import MobileNetV3
from ghostdet.models.classifier import ClassificationHead, ImageClassifier
from ghostdet.models.dense_heads.light_gfl_head import LightGFLHead
from ghostdet.models.dense_heads.two_phase_gfl_head import TwoPhaseGFLHead
from ghostdet.models.exported_detector import ExportedDetector
from ghostdet.models.layers.ghost_conv import GhostConv
from ghostdet.models.layers.ghost_module import GhostBottleneck, GhostModule
from ghostdet.models.necks.ghost_fpn import GhostNetFPN
from ghostdet.models.necks.ghost_pan import GhostPAN

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
    "LightGFLHead",
    "MobileNetV3",
    "TwoPhaseGFLHead",
]
