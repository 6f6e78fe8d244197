# The demo: tree crowns in aerial photographs, from scratch, in a few minutes on two CPU
# cores.
_base_ = [
    "../_base_/models/retinanet_ghostnet_fpn_small.py",
    "../_base_/datasets/trees_detection.py",
    "../_base_/schedules/schedule_scratch.py",
    "../_base_/runtime_scratch.py",
]

model = dict(
    # Training crops have no padding. Padded from 400 to 416 px, tiles would fill with
    # false detections at their borders: AP50 0.48, not 0.56, with the same weights.
    data_preprocessor=dict(pad_size_divisor=1),
    bbox_head=dict(num_classes=1, anchor_generator=dict(octave_base_scale=3)),
    # Trees cut to less than half by a border are marked as crowd: neither objects nor
    # background.
    train_cfg=dict(assigner=dict(ignore_iof_thr=0.5)),
    test_cfg=dict(max_per_img=300),  # a whole photograph has more than 100 trees
)

max_iters = 700
train_cfg = dict(max_iters=max_iters, val_interval=140)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
default_hooks = dict(checkpoint=dict(interval=140))
