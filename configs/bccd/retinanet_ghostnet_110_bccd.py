# The paper's RetinaNet on blood cells, from scratch, in the training time of
# light_s_bccd.py: a tenth of its iterations (docs/light.md).
_base_ = [
    "../_base_/models/retinanet_ghostnet_fpn.py",
    "../_base_/datasets/bccd_detection.py",
    "../_base_/schedules/schedule_scratch.py",
    "../_base_/runtime_scratch.py",
]

model = dict(bbox_head=dict(num_classes=3, anchor_generator=dict(octave_base_scale=2)))

optim_wrapper = dict(optimizer=dict(lr=0.001))
max_iters = 55
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = param_scheduler[1].begin = 10
param_scheduler[1].end = max_iters
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=max_iters))
log_processor = dict(window_size=5)
