# Light detector M at 1333x800, to compare with the paper's RetinaNet.
_base_ = [
    "../_base_/models/gfl_ghostnet_pan_m.py",
    "../_base_/datasets/coco_light_800.py",
    "../_base_/schedules/schedule_light_36e.py",
    "../_base_/runtime_light.py",
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type="GhostNetPretrained", checkpoint="hf-hub:timm/ghostnet_100.in1k"
        )
    )
)
default_hooks = dict(checkpoint=dict(interval=1))
