# BN takes its statistics from the images of all GPUs (docs/reproduce.md); the paper's
# COCO table, mAP 26.9.
_base_ = "faster_rcnn_ghostnet_fpn.py"

sync_bn = "torch"
