# Light detector L, GhostNet 1.3x, at 416x416.
_base_ = [
    "../_base_/models/gfl_ghostnet_pan_l.py",
    "../_base_/datasets/coco_light_416.py",
    "../_base_/schedules/schedule_light.py",
    "../_base_/runtime_light.py",
]

# PaddleClas's weights, with PaddleClas's SE.
model = dict(
    backbone=dict(
        se_gate="clip",
        se_divisor=1,
        init_cfg=dict(
            type="GhostNetPretrained",
            checkpoint="https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/"
            "GhostNet_x1_3_pretrained.pdparams",
        ),
    )
)
