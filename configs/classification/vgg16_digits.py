# VGG-16 on scikit-learn's handwritten digits, to compare with ghost_vgg16_digits.py.
_base_ = [
    "../_base_/models/cifar_classifier.py",
    "../_base_/datasets/digits.py",
    "../_base_/schedules/schedule_digits.py",
    "../_base_/runtime_digits.py",
]
model = dict(
    backbone=dict(type="CifarVGG16"),
    head=dict(in_channels=512, hidden_channels=512, dropout=0.5),
)
