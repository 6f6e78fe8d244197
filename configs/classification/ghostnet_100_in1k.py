# GhostNet 1.0x on ImageNet: the paper's top-1 73.9, top-5 91.4.
_base_ = [
    "../_base_/models/ghostnet_classifier.py",
    "../_base_/datasets/imagenet.py",
    "../_base_/schedules/schedule_imagenet.py",
    "../_base_/runtime_imagenet.py",
]
model = dict(head=dict(label_smoothing=0.1))

# Weights are averaged; the averaged ones are evaluated and saved.
custom_hooks = [
    dict(type="CheckpointGuardHook"),
    dict(
        type="EMAHook",
        ema_type="ExpMomentumEMA",
        momentum=0.0001,
        update_buffers=True,
        priority=49,
    ),
]
