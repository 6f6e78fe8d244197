# ImageNet-1k, one folder per class, under train/ and val/.
data_root = "data/imagenet/"
v2 = "torchvision.transforms.v2."
bicubic = 3

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    drop_last=True,
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="ImageFolder",
        root=data_root + "train",
        pipeline=[
            dict(type=v2 + "RandomResizedCrop", size=224, interpolation=bicubic),
            dict(type=v2 + "RandomHorizontalFlip"),
            dict(type=v2 + "ColorJitter", brightness=0.4, contrast=0.4, saturation=0.4),
            dict(type=v2 + "PILToTensor"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="ImageFolder",
        root=data_root + "val",
        pipeline=[
            dict(type=v2 + "Resize", size=256, interpolation=bicubic),
            dict(type=v2 + "CenterCrop", size=224),
            dict(type=v2 + "PILToTensor"),
        ],
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="Accuracy", topk=(1, 5))
test_evaluator = val_evaluator
