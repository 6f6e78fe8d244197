# COCO 2017 at 1333x800, in training at short sides of 480 px and more.
_base_ = "coco_detection.py"

train_pipeline = [
    dict(type="LoadReadableImage", max_unreadable=100),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomResize",
        scale=[(1333, 480), (1333, 800)],
        keep_ratio=True,
    ),
    dict(type="YOLOXHSVRandomAug"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
