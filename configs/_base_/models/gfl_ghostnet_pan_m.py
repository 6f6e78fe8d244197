# Size M.
_base_ = "gfl_ghostnet_pan.py"

model = dict(
    backbone=dict(widen_factor=1.0),
    neck=dict(in_channels=[40, 112, 160]),
)
