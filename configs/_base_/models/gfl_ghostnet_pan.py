# Light detector, size S: GhostNet, a Ghost pyramid with strides 8 to 64, and GFL's head
# with one narrow convolution (docs/light.md).
num_classes = len(__import__("ghostdet").given("classes", ("object",) * 80))

model = dict(
    type="GFL",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(type="GhostNet", widen_factor=0.5, out_indices=(1, 2, 3)),
    neck=dict(type="GhostPAN", in_channels=[20, 56, 80], out_channels=96, num_outs=4),
    bbox_head=dict(
        type="LightGFLHead",
        num_classes=num_classes,
        in_channels=96,
        feat_channels=36,
        # Sides up to 10 strides away: boxes of 1280 px at stride 64.
        reg_max=10,
        anchor_generator=dict(
            type="AnchorGenerator",
            ratios=[1.0],
            octave_base_scale=5,
            scales_per_octave=1,
            strides=[8, 16, 32, 64],
        ),
        loss_cls=dict(
            type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0
        ),
        loss_dfl=dict(type="DistributionFocalLoss", loss_weight=0.25),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(type="ATSSAssigner", topk=9),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type="nms", iou_threshold=0.6),
        max_per_img=100,
    ),
)
