# The paper's RetinaNet on blood cells, from scratch, in the training time of
# light_s_bccd.py: a tenth of its iterations (docs/light.md).
_base_ = [
    "../_base_/models/retinanet_ghostnet_fpn.py",
    "../_base_/datasets/bccd_detection.py",
    "../_base_/schedules/schedule_scratch.py",
]

classes = _base_.classes
anchor_scale = 2
max_iters = __import__("ghostdet").given("max_iters", 55)
train_cfg = dict(val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = param_scheduler[1].begin = 10
optim_wrapper = dict(optimizer=dict(lr=0.001))
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=max_iters))
log_processor = dict(window_size=5)

__import__("ghostdet").derive(globals())
