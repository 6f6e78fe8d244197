# Tree crowns in aerial photographs, written by ghostdet.datasets.prepare_trees: tiles
# of 400 px, with a median crown of 38 px.
dataset_type = "CocoDataset"
data_root = "data/trees/"
metainfo = dict(classes=("tree",), palette=[(255, 200, 0)])

train_pipeline = [
    dict(type="LoadImageFromFile", max_unreadable=10),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomFlip", prob=0.75, direction=["horizontal", "vertical", "diagonal"]
    ),
    dict(type="RandomResize", scale=(400, 400), ratio_range=(0.8, 1.25)),
    dict(type="RandomCrop", crop_size=(256, 256)),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale_factor=1.0),
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
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="train/"),
        pipeline=train_pipeline,
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
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="val/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="CocoMetric",
    ann_file=data_root + "annotations/instances_val.json",
    metric="bbox",
)
test_evaluator = val_evaluator
