# VGG-16 of Ghost modules on scikit-learn's handwritten digits.
_base_ = "vgg16_digits.py"

model = dict(backbone=dict(ratio=2))
