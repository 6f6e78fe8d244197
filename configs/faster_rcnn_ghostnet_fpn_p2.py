# With stride 4, as the author describes: P2 to P6, and MMDetection's own anchor scale
# and RoI levels.
_base_ = "faster_rcnn_ghostnet_fpn.py"

model = dict(
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(strides=(4, 8, 16, 32)),
    rpn_head=dict(anchor_generator=dict(scales=[8], strides=[4, 8, 16, 32, 64])),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=[4, 8, 16, 32], finest_scale=56)
    ),
)
