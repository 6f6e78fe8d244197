# Light detector S on blood cells at 256 px, from scratch.
_base_ = [
    "../_base_/models/gfl_ghostnet_pan.py",
    "../_base_/datasets/bccd_detection.py",
    "../_base_/schedules/schedule_scratch.py",
    "../_base_/runtime_scratch.py",
]

model = dict(bbox_head=dict(num_classes=3))

max_iters = 500
train_cfg = dict(max_iters=max_iters, val_interval=250)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
default_hooks = dict(checkpoint=dict(interval=250))
