# The usual ResNet schedule on ImageNet: 100 epochs at batch 256, SGD at 0.1 in steps.
max_epochs = 100
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [dict(type="MultiStepLR", milestones=[30, 60, 90], by_epoch=True)]
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
)

# The learning rate is for 8 GPUs with 32 images; tools/train.py fits it to others.
auto_scale_lr = dict(enable=False, base_batch_size=256)
