# Light detector M for data of one's own.
_base_ = [
    "../_base_/models/gfl_ghostnet_pan_m.py",
    "../_base_/datasets/own_detection.py",
    "../_base_/schedules/schedule_scratch.py",
    "../_base_/runtime_scratch.py",
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type="GhostNetPretrained", checkpoint="hf-hub:timm/ghostnet_100.in1k"
        )
    )
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))))
