# For data of one's own: a pretrained backbone changes less than what is new, and the
# averaged weights of about the last tenth of the training are evaluated and saved.
_base_ = "schedule_scratch.py"
given = __import__("ghostdet").given

pretrained = given("weights", "backbone.pth", optional=True)
custom_keys = dict(backbone=dict(lr_mult=0.1)) if pretrained else {}
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=custom_keys))

max_iters = given("max_iters", 450)
custom_hooks = [
    dict(type="CheckpointGuardHook"),
    dict(
        type="EMAHook",
        ema_type="ExpMomentumEMA",
        momentum=10 / (max_iters + 10),
        gamma=max(max_iters // 5, 1),
        update_buffers=True,
        priority=49,
    ),
]
