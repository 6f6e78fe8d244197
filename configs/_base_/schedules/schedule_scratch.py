# A short training, which counts iterations: AdamW, for batch 8.
_base_ = "../default_runtime.py"

max_iters = __import__("ghostdet").given("max_iters", 450)
interval = max(max_iters // 3, 1)  # of evaluations and checkpoints
warmup = max(min(50, max_iters // 5), 1)

train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=interval)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=warmup),
    dict(
        type="CosineAnnealingLR",
        by_epoch=False,
        begin=warmup,
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

default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=interval, max_keep_ckpts=2),
)
log_processor = dict(window_size=20, by_epoch=False)
randomness = dict(seed=0)
