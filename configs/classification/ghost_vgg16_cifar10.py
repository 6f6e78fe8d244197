# VGG-16 of Ghost modules, s=2 and d=3, on CIFAR-10: the paper's top-1 93.7.
_base_ = "vgg16_cifar10.py"
model = dict(backbone=dict(ratio=2))
