# The paper's RetinaNet on blood cells, from scratch, for as long as light_s_bccd.py
# takes, which is a tenth of its iterations (docs/light.md).
_base_ = [
    "../_base_/models/retinanet_ghostnet_fpn.py",
    "../_base_/datasets/bccd_detection.py",
    "../_base_/schedules/schedule_scratch.py",
    "../_base_/default_runtime.py",
]

model = dict(bbox_head=dict(num_classes=3, anchor_generator=dict(octave_base_scale=2)))

optim_wrapper = dict(optimizer=dict(lr=0.001))
max_iters = 55
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=10),
    dict(
        type="CosineAnnealingLR",
        by_epoch=False,
        begin=10,
        end=max_iters,
        eta_min_ratio=0.01,
    ),
]
default_hooks = dict(
    logger=dict(interval=5),
    checkpoint=dict(by_epoch=False, interval=max_iters),
)
log_processor = dict(window_size=5, by_epoch=False)
