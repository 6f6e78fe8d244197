# Blood cells at 256 px, from scratch, in some minutes on two CPU cores:
#   python tools/train.py configs/bccd/retinanet_ghostnet_small_bccd.py --data-root DIR
_base_ = [
    "../_base_/models/retinanet_ghostnet_fpn_small.py",
    "../_base_/datasets/bccd_detection.py",
    "../_base_/schedules/schedule_scratch.py",
    "../_base_/default_runtime.py",
]

# Anchors from 16 to 101 px: platelets are 16 px at this size, white cells 82.
model = dict(bbox_head=dict(num_classes=3, anchor_generator=dict(octave_base_scale=2)))

max_iters = 450
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=150)
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
    checkpoint=dict(by_epoch=False, interval=150, max_keep_ckpts=2),
)
log_processor = dict(window_size=20, by_epoch=False)
