# Light detector M for data of one's own.
_base_ = [
    "../_base_/models/gfl_ghostnet_pan_m.py",
    "../_base_/datasets/own_detection.py",
    "../_base_/schedules/schedule_pretrained.py",
]

weights = __import__("ghostdet").given(
    "weights", "hf-hub:timm/ghostnet_100.in1k", optional=True
)
init_cfg = dict(type="GhostNetPretrained", checkpoint=weights) if weights else None
model = dict(backbone=dict(init_cfg=init_cfg))
