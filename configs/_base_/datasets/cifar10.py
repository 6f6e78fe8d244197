# CIFAR-10 as torchvision stores it, in data/cifar10/cifar-10-batches-py/.
data_root = "data/cifar10/"
v2 = "torchvision.transforms.v2."

train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    drop_last=True,
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="CIFAR10",
        root=data_root,
        train=True,
        pipeline=[
            dict(type=v2 + "RandomCrop", size=32, padding=4),
            dict(type=v2 + "RandomHorizontalFlip"),
            dict(type=v2 + "PILToTensor"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="CIFAR10",
        root=data_root,
        train=False,
        pipeline=[dict(type=v2 + "PILToTensor")],
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="Accuracy", topk=(1, 5))
test_evaluator = val_evaluator
