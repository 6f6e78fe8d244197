# Data of one's own, as ghostdet init lays it out: COCO JSON in data_root.
given = __import__("ghostdet").given

data_root = given("data_root", "data/own/")
root = data_root.rstrip("/") + "/"
images = given("images", data_root)  # the folder that names of images start from
classes = given("classes", ("object",))
# Width and height; all batches have this shape.
image_size = given("image_size", (320, 320))
train_file = given("train_file", "train.json")
val_file = given("val_file", "val.json")
test_file = given("test_file", val_file)

train_pipeline = [
    dict(type="LoadImageFromFile", max_unreadable=10),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomResize", scale=image_size, ratio_range=(0.9, 1.1), keep_ratio=False
    ),
    dict(type="RandomCrop", crop_size=image_size, allow_negative_crop=True),
    dict(type="YOLOXHSVRandomAug"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="Pad", size=image_size, pad_val=dict(img=(114, 114, 114))),
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

dataset = dict(
    type="CocoDataset",
    metainfo=dict(classes=classes),
    data_prefix=dict(img=images),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(**dataset, ann_file=root + train_file, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        ann_file=root + val_file,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    val_dataloader,
    dataset=dict(val_dataloader["dataset"], ann_file=root + test_file),
)

val_evaluator = dict(type="CocoMetric", ann_file=root + val_file, metric="bbox")
test_evaluator = dict(val_evaluator, ann_file=root + test_file)
