# The demo's trees with a RetinaNet, to compare:
# make demo CONFIG=configs/demo/retinanet_ghostnet_trees.py
_base_ = [
    "../_base_/models/retinanet_ghostnet_fpn_small.py",
    "../_base_/datasets/trees_detection.py",
    "../_base_/schedules/schedule_scratch.py",
]

classes = _base_.classes
anchor_scale = 3
max_iters = 700
model = dict(
    # Training crops have no padding. Padded from 400 to 416 px, tiles would fill with
    # false detections at their borders: AP50 0.48, not 0.56, with the same weights.
    data_preprocessor=dict(pad_size_divisor=1),
    # Trees cut to less than half by a border are marked as crowd: neither objects nor
    # background.
    train_cfg=dict(assigner=dict(ignore_iof_thr=0.5)),
    test_cfg=dict(max_per_img=300),  # a whole photograph has more than 100 trees
)
train_cfg = dict(val_interval=140)
default_hooks = dict(checkpoint=dict(interval=140))

__import__("ghostdet").derive(globals())
