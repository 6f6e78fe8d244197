# Light detector M at 1333x800, beside the paper's RetinaNet.
_base_ = [
    "../_base_/models/gfl_ghostnet_pan_m.py",
    "../_base_/datasets/coco_light_800.py",
    "../_base_/schedules/schedule_light_36e.py",
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type="GhostNetPretrained", checkpoint="hf-hub:timm/ghostnet_100.in1k"
        )
    )
)
