# The demo: tree crowns in aerial photographs, from scratch, in a few minutes on two CPU
# cores.
_base_ = [
    "../_base_/models/gfl_ghostnet_pan.py",
    "../_base_/datasets/trees_detection.py",
    "../_base_/schedules/schedule_scratch.py",
]

classes = _base_.classes
max_iters = 700
model = dict(
    data_preprocessor=dict(pad_size_divisor=1),  # training crops have no padding
    # Trees cut to less than half by a border are marked as crowd: neither objects nor
    # background.
    train_cfg=dict(assigner=dict(ignore_iof_thr=0.5)),
    test_cfg=dict(max_per_img=300),  # a whole photograph has more than 100 trees
)
train_cfg = dict(val_interval=140)
default_hooks = dict(checkpoint=dict(interval=140))

__import__("ghostdet").derive(globals())
