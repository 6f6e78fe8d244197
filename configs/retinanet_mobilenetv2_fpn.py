# RetinaNet with MobileNetV2 1.0x: the paper's COCO table, mAP 26.7.
_base_ = "retinanet_ghostnet_fpn.py"

widen_factor = 1.0
model = dict(
    backbone=dict(
        _delete_=True,
        type="MobileNetV2",
        widen_factor=widen_factor,
        out_indices=(2, 4, 6),  # the last block at stride 8, 16 and 32
        init_cfg=dict(
            type="CheckedPretrained",
            checkpoint="https://download.openmmlab.com/mmdetection/v2.0/third_party/"
            "mobilenet_v2_batch256_imagenet-ff34753d.pth",
        ),
    ),
    neck=dict(
        _delete_=True,
        type="FPN",
        in_channels=[32, 96, 320],
        out_channels=256,
        add_extra_convs="on_input",
        num_outs=5,
    ),
)
# MobileNetV2 computes its final convolution without using it.
find_unused_parameters = True
