# The paper's RetinaNet for data of one's own, from weights of 1.0x.
_base_ = [
    "../_base_/models/retinanet_ghostnet_fpn.py",
    "../_base_/datasets/own_detection.py",
    "../_base_/schedules/schedule_pretrained.py",
]

weights = __import__("ghostdet").given(
    "weights", "hf-hub:timm/ghostnet_100.in1k", optional=True
)
init_cfg = dict(type="GhostNetPretrained", checkpoint=weights, widen=True)
model = dict(backbone=dict(init_cfg=init_cfg if weights else None))
optim_wrapper = dict(optimizer=dict(lr=0.001))
