# GhostNet 1.0x on ImageNet: the paper's top-1 73.9, top-5 91.4.
_base_ = [
    "../_base_/models/ghostnet_classifier.py",
    "../_base_/datasets/imagenet.py",
    "../_base_/schedules/schedule_imagenet.py",
]
model = dict(head=dict(label_smoothing=0.1))
