# Light detector L, GhostNet 1.3x, for data of one's own.
_base_ = [
    "../_base_/models/gfl_ghostnet_pan.py",
    "../_base_/datasets/own_detection.py",
    "../_base_/schedules/schedule_scratch.py",
    "../_base_/runtime_scratch.py",
]

# PaddleClas's weights, with PaddleClas's SE: the authors published none of 1.3x.
model = dict(
    backbone=dict(
        widen_factor=1.3,
        se_gate="clip",
        se_divisor=1,
        init_cfg=dict(
            type="GhostNetPretrained",
            checkpoint="https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/"
            "GhostNet_x1_3_pretrained.pdparams",
        ),
    ),
    neck=dict(in_channels=[52, 144, 208]),
)
# A pretrained backbone changes less than what is new.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))))
