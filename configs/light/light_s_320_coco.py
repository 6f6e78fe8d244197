# Light detector S, GhostNet 0.5x, at 320x320.
_base_ = [
    "../_base_/models/gfl_ghostnet_pan.py",
    "../_base_/datasets/coco_light_320.py",
    "../_base_/schedules/schedule_light.py",
    "../_base_/runtime_light.py",
]

# PaddleClas's weights, with PaddleClas's SE: the authors published none of 0.5x.
model = dict(
    backbone=dict(
        se_gate="clip",
        se_divisor=1,
        init_cfg=dict(
            type="GhostNetPretrained",
            checkpoint="https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/"
            "GhostNet_x0_5_pretrained.pdparams",
        ),
    )
)
