# The paper's Faster R-CNN for data of one's own.
_base_ = [
    "../_base_/models/faster_rcnn_ghostnet_fpn.py",
    "../_base_/datasets/own_detection.py",
    "../_base_/schedules/schedule_scratch.py",
    "../_base_/runtime_scratch.py",
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type="GhostNetPretrained",
            checkpoint="hf-hub:timm/ghostnet_100.in1k",
            widen=True,
        )
    )
)
optim_wrapper = dict(
    optimizer=dict(lr=0.001),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
