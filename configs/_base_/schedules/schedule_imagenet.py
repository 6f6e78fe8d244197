# The authors' recipe as far as they told it: 400 epochs at batch 1024, SGD at 0.4, five
# epochs of warm-up, cosine (docs/classification.md says who said what). Weights are
# averaged, and the averaged ones are evaluated and saved.
_base_ = "../runtime.py"

max_epochs = 400
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=0.001,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        begin=5,
        end=max_epochs,
        T_max=max_epochs - 5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.4, momentum=0.9, weight_decay=4e-5),
)
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
default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=3, save_best="accuracy/top1", rule="greater")
)

# The learning rate is for 8 GPUs with 128 images; tools/train.py fits it to others.
auto_scale_lr = dict(enable=False, base_batch_size=1024)
