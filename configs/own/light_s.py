# Light detector S for data of one's own: ghostdet init writes configs on it.
_base_ = [
    "../_base_/models/gfl_ghostnet_pan.py",
    "../_base_/datasets/own_detection.py",
    "../_base_/schedules/schedule_scratch.py",
    "../_base_/runtime_scratch.py",
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
# A pretrained backbone changes less than what is new.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))))
