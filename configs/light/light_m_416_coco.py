# Light detector M, GhostNet 1.0x, at 416x416.
_base_ = [
    "../_base_/models/gfl_ghostnet_pan_m.py",
    "../_base_/datasets/coco_light_416.py",
    "../_base_/schedules/schedule_light.py",
    "../_base_/runtime_light.py",
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type="GhostNetPretrained", checkpoint="hf-hub:timm/ghostnet_100.in1k"
        )
    )
)
