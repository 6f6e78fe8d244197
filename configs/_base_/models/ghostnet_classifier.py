# GhostNet with the paper's head, on images in RGB.
model = dict(
    type="ImageClassifier",
    data_preprocessor=dict(
        type="ImgDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
    ),
    backbone=dict(type="GhostNet", widen_factor=1.0, out_indices=(4,)),
    head=dict(type="ClassificationHead", in_channels=960, num_classes=1000),
)
