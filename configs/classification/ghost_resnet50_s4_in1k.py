# ResNet-50 of Ghost convolutions, s=4, on ImageNet: the paper's top-1 74.1.
_base_ = "ghost_resnet50_in1k.py"
model = dict(backbone=dict(ratio=4))
