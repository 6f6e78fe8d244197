_base_ = "runtime.py"

default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=3, save_best="accuracy/top1", rule="greater")
)
