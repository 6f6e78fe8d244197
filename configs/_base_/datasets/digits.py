# Handwritten digits of 8x8 pixels, enlarged to 32x32, the stride of the networks.
v2 = "torchvision.transforms.v2."
size = 32

train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    drop_last=True,
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="Digits",
        train=True,
        pipeline=[
            dict(type=v2 + "Resize", size=size),
            dict(type=v2 + "RandomAffine", degrees=10, translate=(0.1, 0.1)),
            dict(type=v2 + "PILToTensor"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="Digits",
        train=False,
        pipeline=[
            dict(type=v2 + "Resize", size=size),
            dict(type=v2 + "PILToTensor"),
        ],
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="Accuracy", topk=(1,))
test_evaluator = val_evaluator
