# BN takes its statistics from the images of all GPUs (docs/reproduce.md); the paper's
# COCO table, mAP 26.6.
_base_ = "retinanet_ghostnet_fpn.py"

sync_bn = "torch"
