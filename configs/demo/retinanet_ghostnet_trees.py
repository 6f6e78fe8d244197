# The demo: GhostNet 0.5x RetinaNet from scratch on tree crowns in aerial photographs,
# sized for some minutes on two CPU cores.
_base_ = [
    "../_base_/models/retinanet_ghostnet_fpn.py",
    "../_base_/datasets/trees_detection.py",
    "../_base_/default_runtime.py",
]

norm_cfg = dict(type="GN", num_groups=16)  # from scratch, BN in the head learns slower
model = dict(
    backbone=dict(widen_factor=0.5),
    neck=dict(widen_factor=0.5, out_channels=64, num_outs=3, norm_cfg=norm_cfg),
    bbox_head=dict(
        num_classes=1,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=norm_cfg,
        anchor_generator=dict(strides=[8, 16, 32]),
        reg_decoded_bbox=True,
        loss_bbox=dict(_delete_=True, type="GIoULoss", loss_weight=2.0),
    ),
    test_cfg=dict(nms=dict(iou_threshold=0.4)),
)

max_iters = 1000
train_cfg = dict(
    type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters // 5
)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=0.002, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type="CosineAnnealingLR",
        by_epoch=False,
        begin=50,
        T_max=max_iters - 50,
        end=max_iters,
        eta_min=2e-5,
    ),
]
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(by_epoch=False, interval=max_iters, max_keep_ckpts=1),
)
log_processor = dict(window_size=20, by_epoch=False)
randomness = dict(seed=0)
