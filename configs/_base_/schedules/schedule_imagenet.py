# The authors' recipe as far as it is known (docs/classification.md): 400 epochs at
# batch 1024, SGD at 0.4, five epochs of warm-up, cosine.
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

# The learning rate is for 8 GPUs with 128 images; tools/train.py fits it to others.
auto_scale_lr = dict(enable=False, base_batch_size=1024)
