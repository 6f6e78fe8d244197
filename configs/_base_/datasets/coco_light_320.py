# COCO 2017 at 320x320, so that a device gets one shape. Training images are zoomed,
# cropped and recoloured, and no more: small networks do not overfit.
_base_ = "coco_detection.py"

image_size = (320, 320)
train_pipeline = [
    dict(type="LoadImageFromFile", max_unreadable=100),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomResize", scale=image_size, ratio_range=(0.6, 1.8), keep_ratio=False
    ),
    dict(type="RandomCrop", crop_size=image_size),
    dict(type="YOLOXHSVRandomAug"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = _base_.test_pipeline
test_pipeline[1] = dict(type="Resize", scale=image_size, keep_ratio=False)

train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    batch_sampler=None,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=8, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
