# Blood cells (https://github.com/Shenggan/BCCD_Dataset, MIT) as COCO JSON:
# annotations/{train,val,test}.json and images/. Trains on train and val.
dataset_type = "CocoDataset"
data_root = "data/bccd/"
metainfo = dict(classes=("RBC", "WBC", "Platelets"))
# Batches have one shape and no padding.
image_size = (256, 256)

train_pipeline = [
    dict(type="LoadImageFromFile", max_unreadable=10),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomFlip", prob=0.75, direction=["horizontal", "vertical", "diagonal"]
    ),
    dict(type="Resize", scale=image_size, keep_ratio=False),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=image_size, keep_ratio=False),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="ConcatDataset",
        datasets=[
            dict(
                type=dataset_type,
                data_root=data_root,
                metainfo=metainfo,
                ann_file=f"annotations/{part}.json",
                data_prefix=dict(img="images/"),
                filter_cfg=dict(filter_empty_gt=True),
                pipeline=train_pipeline,
            )
            for part in ("train", "val")
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file="annotations/test.json",
        data_prefix=dict(img="images/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="CocoMetric",
    ann_file=data_root + "annotations/test.json",
    metric="bbox",
)
test_evaluator = val_evaluator
