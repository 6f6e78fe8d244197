# GhostNet 0.5x RetinaNet for small data sets and training from scratch: a light head
# with GN, and boxes learned by GIoU.
_base_ = "retinanet_ghostnet_fpn.py"

norm_cfg = dict(type="GN", num_groups=16)
model = dict(
    backbone=dict(widen_factor=0.5),
    neck=dict(widen_factor=0.5, out_channels=64, num_outs=3, norm_cfg=norm_cfg),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=norm_cfg,
        anchor_generator=dict(strides=[8, 16, 32]),
        reg_decoded_bbox=True,
        loss_bbox=dict(_delete_=True, type="GIoULoss", loss_weight=2.0),
    ),
)
