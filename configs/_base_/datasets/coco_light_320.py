# COCO 2017 at 320x320, both sides, so that a device sees one shape: zoomed, cropped and
# recoloured in training, and no more, since small networks do not fill up.
_base_ = "coco_detection.py"

train_pipeline = [
    dict(type="LoadReadableImage", max_unreadable=100),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomResize",
        scale=(320, 320),
        ratio_range=(0.6, 1.8),
        keep_ratio=False,
    ),
    dict(type="RandomCrop", crop_size=(320, 320)),
    dict(type="YOLOXHSVRandomAug"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(320, 320), keep_ratio=False),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    batch_sampler=None,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=8, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
