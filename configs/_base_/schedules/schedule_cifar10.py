# The usual 200 epochs at batch 128: SGD at 0.1, a tenth of it after 100 and 150. The
# authors train Ghost networks for 400 epochs (docs/cifar10.md).
max_epochs = 200
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [dict(type="MultiStepLR", milestones=[100, 150], by_epoch=True)]
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
)

# The learning rate is for one GPU with 128 images; tools/train.py fits it to others.
auto_scale_lr = dict(enable=False, base_batch_size=128)
