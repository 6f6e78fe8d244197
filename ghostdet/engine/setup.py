"""Every change that a training run makes to its config."""

from __future__ import annotations

import re
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from ghostdet.engine.batch_size import global_batch, scale_lr
from ghostdet.engine.distributed import heed_launcher, on_main_process
from ghostdet.engine.hooks.checkpoint import MAP, use_safe_checkpoints
from ghostdet.engine.loops import use_resumable_loops
from ghostdet.engine.resume import find_latest_valid_checkpoint, restarted
from ghostdet.errors import UserError
from ghostdet.utils.components import first_metainfo, is_classifier, type_name
from ghostdet.weights import get_state_dict
from ghostdet.weights.checkpoint import read_checkpoint
from ghostdet.weights.source import REMOTE


def setup_run(
    cfg: Config,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = True,
    patience: int | None = None,
) -> tuple[str, dict[str, Any]]:
    """Change a run's config as the run needs it, in a work directory that is locked.

    - ``resume`` and ``load_from`` name the checkpoint to start from. Weights that
      it replaces are not initialised first, and its seed is kept.
    - The learning rate follows the global batch size.
    - Loops, the checkpoint hook and further hooks are replaced by ghostdet's.

    Args:
        cfg: A config from :func:`~ghostdet.config.load_config`, which is changed.
        resume, amp, auto_scale_lr, patience: See :func:`ghostdet.apis.train`.

    Returns:
        How the learning rate follows from the config's, for the log, and the classes
        that the checkpoint was trained on, if known.

    Raises:
        UserError: If the work directory, the checkpoint or an option cannot be used.
    """
    if cfg.launcher != "none":
        heed_launcher()
    if amp:
        if not torch.cuda.is_available():
            raise UserError("--amp needs a GPU, and PyTorch finds none; leave it out")
        # fp16 has slow depthwise kernels on Hopper (pytorch 170138).
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = "bfloat16" if native else "float16"
        cfg.optim_wrapper.update(
            type="AmpOptimWrapper", loss_scale="dynamic", dtype=dtype
        )
    learning_rate, dataset_meta = "the config's, unscaled", _set_start(cfg, resume)
    if auto_scale_lr:
        learning_rate = scale_lr(cfg)
    elif cfg.get("auto_scale_lr"):
        cfg.auto_scale_lr.scaled_to = global_batch(cfg).total  # as it is
    if cfg.get("auto_scale_lr"):
        cfg.auto_scale_lr.enable = False  # MMEngine's own scaling
    use_run_components(cfg)
    if patience is not None:
        _stop_early(cfg, patience)
    return learning_rate, dataset_meta


def use_run_components(cfg: Config) -> None:
    """Replace loops and the checkpoint hook by ours, and add the hooks of a run."""
    use_resumable_loops(cfg)
    use_safe_checkpoints(cfg)
    logger = (cfg.get("default_hooks") or {}).get("logger") or {}
    add_hook(cfg, "CheckpointGuardHook")
    add_hook(cfg, "GracefulStopHook")
    add_hook(cfg, "RunRecordHook", interval=logger.get("interval", 50))


def add_hook(cfg: Config, name: str, **arguments: Any) -> None:
    """Add a hook to ``custom_hooks``, unless the config has one of its type."""
    hooks = list(cfg.get("custom_hooks") or [])
    kinds = [h.get("type") if isinstance(h, dict) else type(h) for h in hooks]
    if name not in map(type_name, kinds):
        cfg.custom_hooks = [*hooks, dict(type=name, **arguments)]


def _update_hooks(cfg: Config, name: str, **arguments: Any) -> None:
    """Set arguments of the hooks of a type in ``custom_hooks``."""
    for hook in cfg.custom_hooks:
        if isinstance(hook, dict) and type_name(hook.get("type")) == name:
            hook.update(arguments)


def _stop_early(cfg: Config, patience: int) -> None:
    """Stop after evaluations without a better metric, which ``save_best`` may name.

    A config that stops early keeps its hook, with this patience.
    """
    hook = cfg.default_hooks.get("checkpoint")
    hook = hook if isinstance(hook, dict) else {}
    metric, rule = (
        value[0] if isinstance(value, (list, tuple)) else value
        for value in (hook.get("save_best"), hook.get("rule"))
    )
    if metric in (None, "auto"):
        metric = "accuracy/top1" if is_classifier(cfg) else MAP
        rule = "greater"
    # MMEngine takes an equal metric for a better one if min_delta is 0.
    rest = dict(monitor=metric, rule=rule, min_delta=1e-6, strict=True)
    add_hook(cfg, "ResumableEarlyStoppingHook", **rest)
    _update_hooks(cfg, "ResumableEarlyStoppingHook", patience=patience)


def _set_start(cfg: Config, resume: str | None) -> dict[str, Any]:
    """Set the checkpoint from which a run starts or resumes, and read it.

    Returns:
        Its ``dataset_meta``.
    """
    if restarted(cfg.work_dir):
        resume = "auto"
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == "auto" else resume
    if cfg.get("resume") and not cfg.get("load_from"):
        cfg.load_from = on_main_process(find_latest_valid_checkpoint, cfg.work_dir)
        if cfg.load_from is None:
            print_log(
                f"{cfg.work_dir} has nothing to resume: starting from the beginning",
                logger="current",
            )
            cfg.resume = False
    path = cfg.get("load_from")
    if not path or ("://" in path and not path.startswith(REMOTE)):
        return {}  # nothing, or one of MMEngine's own schemes
    state = read_checkpoint(path)
    _drop_init_cfg(cfg, list(get_state_dict(state)))
    meta = state.get("meta") or {}
    if not cfg.get("resume"):
        return first_metainfo(meta.get("dataset_meta"))
    if not {"meta", "message_hub"} <= state.keys():
        raise UserError(
            f"{path} has weights but no state of a run, so there is nothing to resume; "
            f"to start from the weights, type --cfg-options load_from={path}"
        )
    # MMEngine restores the seed only after it has built the sampler.
    randomness = dict(cfg.get("randomness") or {})
    if randomness.get("seed") is None:
        cfg.randomness = {**randomness, "seed": meta.get("seed")}
    return first_metainfo(meta.get("dataset_meta"))


def _drop_init_cfg(cfg: Config, names: list[str]) -> None:
    """Drop pretrained weights that a checkpoint replaces, which may be a download.

    Weights that a ``CheckpointGuardHook`` allows to be missing keep theirs.
    """
    allowed: list[str] = []
    for hook in cfg.get("custom_hooks") or []:
        patterns = hook.get("allow") or () if isinstance(hook, dict) else ()
        allowed += [patterns] if isinstance(patterns, str) else patterns
    own = ["backbone.", *(name for name in names if name.startswith("backbone."))]
    weights = init_weights(cfg)
    if "model.init_cfg" in weights and not allowed:
        cfg.model.init_cfg = None
    if "model.backbone.init_cfg" in weights and not any(
        re.match(pattern, name) for pattern in allowed for name in own
    ):
        cfg.model.backbone.init_cfg = None


def init_weights(cfg: Config) -> dict[str, str]:
    """Map keys of a config to the weights that its model is initialised with."""
    parts = {"model": cfg.model, "model.backbone": cfg.model.get("backbone") or {}}
    found = {}
    for key, part in parts.items():
        inits = part.get("init_cfg") or ()
        for init in [inits] if isinstance(inits, dict) else inits:
            if init.get("checkpoint"):
                found[f"{key}.init_cfg"] = init["checkpoint"]
    return found
