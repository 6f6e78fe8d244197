# Faster R-CNN with MobileNetV3-Large 1.0x: the paper's COCO table, mAP 26.9.
_base_ = "faster_rcnn_ghostnet_fpn.py"

widen_factor = 1.0
model = dict(
    backbone=dict(
        _delete_=True,
        type="MobileNetV3",
        widen_factor=widen_factor,
        out_indices=(1, 2, 3),
        init_cfg=dict(
            type="CheckedPretrained",
            checkpoint="https://download.pytorch.org/models/"
            "mobilenet_v3_large-5c1a4163.pth#sha256=5c1a4163",
            allow=[r"features\.16", "classifier"],  # after stride 32's last block
        ),
    ),
    neck=dict(
        _delete_=True,
        type="FPN",
        in_channels=[40, 112, 160],
        out_channels=256,
        num_outs=5,
    ),
)
