# GhostNet 0.5x on ImageNet: the paper's top-1 66.2, top-5 86.6.
_base_ = "ghostnet_100_in1k.py"
model = dict(backbone=dict(widen_factor=0.5), head=dict(in_channels=480))
