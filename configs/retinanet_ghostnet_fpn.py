# RetinaNet with GhostNet 1.1x, 1x schedule: the paper's COCO table, mAP 26.6.
_base_ = [
    "_base_/models/retinanet_ghostnet_fpn.py",
    "_base_/datasets/coco_detection.py",
    "_base_/schedules/schedule_1x.py",
    "_base_/default_runtime.py",
]

# ImageNet weights of 1.0x, widened: the authors published none of 1.1x.
model = dict(
    backbone=dict(
        init_cfg=dict(
            type="GhostNetPretrained",
            checkpoint="hf-hub:timm/ghostnet_100.in1k",
            widen=True,
        )
    )
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
