# GhostNet 1.1x on ImageNet: the backbone in the paper's COCO table.
_base_ = "ghostnet_100_in1k.py"
model = dict(backbone=dict(widen_factor=1.1), head=dict(in_channels=1056))
