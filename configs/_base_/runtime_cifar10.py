_base_ = "runtime.py"

default_hooks = dict(
    logger=dict(interval=130),
    checkpoint=dict(
        interval=10, max_keep_ckpts=2, save_best="accuracy/top1", rule="greater"
    ),
)
