# VGG-16 on CIFAR-10: the paper's top-1 93.6.
_base_ = [
    "../_base_/models/cifar_classifier.py",
    "../_base_/datasets/cifar10.py",
    "../_base_/schedules/schedule_cifar10.py",
    "../_base_/runtime_cifar10.py",
]
# The paper's 15M and 7.7M parameters include a hidden layer of 512. Dropout as in VGG
# (section 3.1 of https://arxiv.org/abs/1409.1556).
model = dict(
    backbone=dict(type="CifarVGG16"),
    head=dict(in_channels=512, hidden_channels=512, dropout=0.5),
)
