# ResNet-56 of Ghost modules, s=2 and d=3, on CIFAR-10: the paper's top-1 92.7.
_base_ = "resnet56_cifar10.py"
model = dict(backbone=dict(ratio=2))
