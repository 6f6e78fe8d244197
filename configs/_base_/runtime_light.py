# Weights are averaged; the averaged ones are evaluated and saved.
_base_ = "default_runtime.py"

custom_hooks = [
    dict(type="CheckpointGuardHook"),
    dict(
        type="EMAHook",
        ema_type="ExpMomentumEMA",
        momentum=0.0002,
        update_buffers=True,
        priority=49,
    ),
]
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=3))
