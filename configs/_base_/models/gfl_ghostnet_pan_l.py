# Size L.
_base_ = "gfl_ghostnet_pan.py"

model = dict(
    backbone=dict(widen_factor=1.3),
    neck=dict(in_channels=[52, 144, 208], out_channels=192),
    bbox_head=dict(in_channels=192, feat_channels=72),
)
