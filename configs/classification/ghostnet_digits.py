# GhostNet 0.5x on scikit-learn's 1,797 handwritten digits: minutes on a CPU.
_base_ = [
    "../_base_/models/ghostnet_classifier.py",
    "../_base_/datasets/digits.py",
    "../_base_/schedules/schedule_digits.py",
    "../_base_/runtime_digits.py",
]
model = dict(
    backbone=dict(widen_factor=0.5), head=dict(in_channels=480, num_classes=10)
)
