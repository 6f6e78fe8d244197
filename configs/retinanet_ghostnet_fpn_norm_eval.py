# BN of the backbone keeps the statistics of its ImageNet weights
# (docs/reproduce.md); the paper's COCO table, mAP 26.6.
_base_ = "retinanet_ghostnet_fpn.py"

model = dict(backbone=dict(norm_eval=True))
