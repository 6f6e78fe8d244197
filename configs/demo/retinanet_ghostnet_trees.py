# The demo: tree crowns in aerial photographs, from scratch, in some minutes on two CPU
# cores.
_base_ = [
    "../_base_/models/retinanet_ghostnet_fpn_small.py",
    "../_base_/datasets/trees_detection.py",
    "../_base_/schedules/schedule_scratch.py",
    "../_base_/default_runtime.py",
]

model = dict(
    # Training crops have no padding, and padded borders of tiles (400 to 416 px) would
    # fill with false detections: AP50 0.48 in place of 0.56 for the same weights.
    data_preprocessor=dict(pad_size_divisor=1),
    bbox_head=dict(num_classes=1, anchor_generator=dict(octave_base_scale=3)),
    # Trees of which a border leaves less than half are marked as crowd: neither
    # objects nor background.
    train_cfg=dict(assigner=dict(ignore_iof_thr=0.5)),
    test_cfg=dict(max_per_img=300),  # a whole photograph has more than 100 trees
)

max_iters = 700
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=140)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type="CosineAnnealingLR",
        by_epoch=False,
        begin=50,
        end=max_iters,
        eta_min_ratio=0.01,
    ),
]
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=140, max_keep_ckpts=2),
)
log_processor = dict(window_size=20, by_epoch=False)
