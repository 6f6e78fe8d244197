# ResNet-56 on CIFAR-10: the paper's top-1 93.0.
_base_ = [
    "../_base_/models/cifar_classifier.py",
    "../_base_/datasets/cifar10.py",
    "../_base_/schedules/schedule_cifar10.py",
    "../_base_/runtime_cifar10.py",
]
model = dict(backbone=dict(type="CifarResNet", depth=56), head=dict(in_channels=64))
