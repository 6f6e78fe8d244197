# Light detector L for data of one's own.
_base_ = [
    "../_base_/models/gfl_ghostnet_pan_l.py",
    "../_base_/datasets/own_detection.py",
    "../_base_/schedules/schedule_pretrained.py",
]

# PaddleClas's weights, with PaddleClas's SE.
weights = __import__("ghostdet").given(
    "weights",
    "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/"
    "GhostNet_x1_3_pretrained.pdparams",
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

__import__("ghostdet").derive(globals())
