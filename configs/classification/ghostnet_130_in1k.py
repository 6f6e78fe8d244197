# GhostNet 1.3x on ImageNet: the paper's top-1 75.7, top-5 92.7.
_base_ = "ghostnet_100_in1k.py"
model = dict(backbone=dict(widen_factor=1.3), head=dict(in_channels=1248))
