_base_ = "runtime.py"

default_hooks = dict(
    logger=dict(interval=11),
    checkpoint=dict(interval=5, max_keep_ckpts=2, save_best="accuracy/top1"),
)
randomness = dict(seed=0)
