# Light detector S on blood cells at 256 px, from scratch.
_base_ = [
    "../_base_/models/gfl_ghostnet_pan.py",
    "../_base_/datasets/bccd_detection.py",
    "../_base_/schedules/schedule_scratch.py",
]

classes = _base_.classes
max_iters = 500
train_cfg = dict(val_interval=250)
default_hooks = dict(checkpoint=dict(interval=250))

__import__("ghostdet").derive(globals())
