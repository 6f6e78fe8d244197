# Short runs that count iterations, not epochs.
_base_ = "default_runtime.py"

default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=150, max_keep_ckpts=2),
)
log_processor = dict(window_size=20, by_epoch=False)
randomness = dict(seed=0)
