# COCO 2017 at 1333x800; training images have short sides from 480 px.
_base_ = "coco_detection.py"

train_pipeline = _base_.train_pipeline
train_pipeline[2:3] = [
    dict(type="RandomResize", scale=[(1333, 480), (1333, 800)], keep_ratio=True),
    dict(type="YOLOXHSVRandomAug"),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
