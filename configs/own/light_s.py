# Light detector S for data of one's own: ghostdet init writes configs on it.
_base_ = [
    "../_base_/models/gfl_ghostnet_pan.py",
    "../_base_/datasets/own_detection.py",
    "../_base_/schedules/schedule_pretrained.py",
]

# PaddleClas's weights, with PaddleClas's SE: the authors published none of 0.5x.
weights = __import__("ghostdet").given(
    "weights",
    "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/"
    "GhostNet_x0_5_pretrained.pdparams",
    optional=True,
)
model = dict(
    backbone=dict(
        se_gate="clip",
        se_divisor=1,
        init_cfg=dict(type="GhostNetPretrained", checkpoint=weights),
    )
    if weights
    else {}
)
