# AdamW without pretrained weights; the learning rate is for batch 8. For a longer
# training write:
#   max_iters = 700
#   train_cfg = dict(max_iters=max_iters)
#   param_scheduler = _base_.param_scheduler
#   param_scheduler[1].end = max_iters
max_iters = 450
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=150)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

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

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=0.006, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0),
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
