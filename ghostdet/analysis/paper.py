"""Figures of the paper, by config.

"GhostNet: More Features from Cheap Operations" (https://arxiv.org/abs/1911.11907), as
others quote its tables.
"""

#: mAP in percent on COCO.
COCO = {
    "retinanet_ghostnet_fpn": 26.6,
    "retinanet_mobilenetv2_fpn": 26.7,
    "retinanet_mobilenetv3_fpn": 26.4,
    "faster_rcnn_ghostnet_fpn": 26.9,
    "faster_rcnn_mobilenetv2_fpn": 27.5,
    "faster_rcnn_mobilenetv3_fpn": 26.9,
}
#: Of classifiers, parameters and MACs in millions and top-1 in percent.
CLASSIFIERS = {
    "ghostnet_050_in1k": (2.6, 42, 66.2),
    "ghostnet_100_in1k": (5.2, 141, 73.9),
    "ghostnet_130_in1k": (7.3, 226, 75.7),
    "ghost_resnet50_in1k": (13, 2200, 75.0),
    "ghost_resnet50_s4_in1k": (6.5, 1200, 74.1),
    "vgg16_cifar10": (15, 313, 93.6),
    "ghost_vgg16_cifar10": (7.7, 158, 93.7),
    "resnet56_cifar10": (0.85, 125, 93.0),
    "ghost_resnet56_cifar10": (0.43, 63, 92.7),
}
