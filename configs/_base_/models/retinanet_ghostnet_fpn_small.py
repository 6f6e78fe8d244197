# RetinaNet with GhostNet 0.5x for small datasets and training from scratch: a light
# head, GN and a GIoU loss.
_base_ = "retinanet_ghostnet_fpn.py"

widen_factor = 0.5
norm_cfg = dict(type="GN", num_groups=16)
model = dict(
    backbone=dict(widen_factor=widen_factor),
    neck=dict(
        widen_factor=widen_factor, out_channels=64, num_outs=3, norm_cfg=norm_cfg
    ),
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
