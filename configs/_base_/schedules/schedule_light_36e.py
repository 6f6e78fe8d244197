# The same for large images: 36 epochs at batch 64, 8 GPUs with 8 images each.
_base_ = "schedule_light.py"

max_epochs = 36
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_epochs
optim_wrapper = dict(optimizer=dict(lr=0.001))
auto_scale_lr = dict(base_batch_size=64)
