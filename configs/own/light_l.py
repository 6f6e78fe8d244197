# Light detector L, GhostNet 1.3x, for data of one's own.
_base_ = "light_s.py"

weights = (
    "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/"
    "GhostNet_x1_3_pretrained.pdparams"
)
model = dict(backbone=dict(widen_factor=1.3), neck=dict(in_channels=[52, 144, 208]))

__import__("ghostdet").derive(globals())
