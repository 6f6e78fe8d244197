"""Training and testing on MMEngine's Runner."""

from __future__ import annotations

import re
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.logging import print_log
from mmengine.runner import Runner

from ghostdet.apis.runner import _build_runner, _check_classes, _check_names
from ghostdet.checks.findings import findings_table
from ghostdet.checks.run import check_run
from ghostdet.config import (
    config_mistakes,
    require,
)
from ghostdet.engine.batch_size import scale_lr
from ghostdet.engine.distributed import on_main_process, restarted, start_processes
from ghostdet.engine.hooks import RunRecordHook
from ghostdet.engine.hooks.checkpoint import use_safe_checkpoints
from ghostdet.engine.hooks.graceful_stop import GracefulStopHook, lost_peer
from ghostdet.engine.loops import use_resumable_loops
from ghostdet.engine.resume import (
    archive_old_checkpoints,
    begun,
    find_latest_valid_checkpoint,
)
from ghostdet.errors import UserError
from ghostdet.utils.files import check_writable
from ghostdet.weights import get_state_dict
from ghostdet.weights.checkpoint import read_checkpoint
from ghostdet.weights.source import REMOTE


def train(
    cfg: Config,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = True,
    check: bool = True,
) -> Runner:
    """Train a detector or classifier, validating as the config says.

    Args:
        cfg: A config from :func:`load_config`.
        resume: ``'auto'`` for the latest checkpoint in ``cfg.work_dir``, or the path
            of one.
        amp: Mixed precision, on a GPU.
        auto_scale_lr: Let the learning rate follow the global batch of this run, from
            the config's ``auto_scale_lr.base_batch_size``, where it has that.
        check: Check at the start what the run needs
            (:func:`~ghostdet.checks.run`, quick).

    Returns:
        The Runner, trained.

    Raises:
        UserError: If the data set, a checkpoint or an option cannot be used, or
            ``cfg.work_dir`` cannot be written; if a loss is not finite, the disk is
            full, or another rank is gone.
        SystemExit: With 143 upon SIGTERM, when a checkpoint is written.
    """
    require(cfg, "model", "train_dataloader", "train_cfg", "optim_wrapper")
    start_processes(cfg)
    check_writable(cfg.work_dir)
    if amp:
        if not torch.cuda.is_available():
            raise UserError("--amp needs a GPU and none is to be seen; leave it out")
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.loss_scale = "dynamic"
    if restarted() and begun(cfg.work_dir):
        resume = "auto"
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == "auto" else resume
    trained = _check_start(cfg)
    if check:
        on_main_process(_preflight, cfg)
    resumed = cfg.load_from if cfg.get("resume") else None
    on_main_process(archive_old_checkpoints, cfg.work_dir, resumed)
    lr = scale_lr(cfg) if auto_scale_lr else "that of the config, as it is"
    use_resumable_loops(cfg)
    use_safe_checkpoints(cfg)
    try:
        with config_mistakes(cfg):
            runner = _build_runner(cfg)
            runner.register_hook(GracefulStopHook())
            logger = (cfg.get("default_hooks") or {}).get("logger") or {}
            runner.register_hook(RunRecordHook(logger.get("interval", 50)))
            runner.logger.info(f"Learning rate: {lr}")
            _check_classes(runner, "train_loop", "val_loop")
            _check_names(runner, "train_loop", trained, cfg.get("load_from"))
            runner.train()
    except RuntimeError as error:
        if not lost_peer(error):
            raise
        raise UserError(
            f"rank {get_rank()} lost another rank: why that ended stands above, or, "
            "if it was killed, in torchrun's report below; --resume goes on from the "
            "last checkpoint"
        ) from error
    return runner


def _preflight(cfg: Config) -> None:
    """Check quickly what the run needs, and show it."""
    findings = check_run(cfg, quick=True)
    failures = [finding for finding in findings if finding.status == "fail"]
    if failures:
        reasons = "\n".join(f"- {f.check}: {f.error().text}" for f in failures)
        if len(failures) == 1:
            text = failures[0].error().text
        else:
            text = f"{cfg.filename} cannot be run:\n{reasons}"
        raise UserError(f"{text}\n--no-check goes on in spite of that")
    print(findings_table(findings))


def _check_start(cfg: Config) -> dict[str, Any]:
    """Find and check the checkpoint from which a run starts or goes on.

    Returns:
        What the run that goes on was trained on, empty if none does.
    """
    if cfg.get("resume") and not cfg.get("load_from"):
        cfg.load_from = on_main_process(find_latest_valid_checkpoint, cfg.work_dir)
        if cfg.load_from is None:
            print_log(
                f"Nothing to resume in {cfg.work_dir}: starting from the beginning",
                logger="current",
            )
            cfg.resume = False
    path = cfg.get("load_from")
    if not path or ("://" in path and not path.startswith(REMOTE)):
        return {}  # MMEngine's own schemes
    state = read_checkpoint(path)
    # MMEngine initialises a model before it loads all of it: a download for nothing.
    backbone = cfg.model.get("backbone") or {}
    allowed = [hook.get("allow") or () for hook in cfg.get("custom_hooks") or []]
    if "checkpoint" in (cfg.model.get("init_cfg") or {}) and not any(allowed):
        cfg.model.init_cfg = None
    if "checkpoint" in (backbone.get("init_cfg") or {}) and not any(
        re.match(pattern, name)
        for patterns in allowed
        for pattern in ([patterns] if isinstance(patterns, str) else patterns)
        for name in ("backbone.", *get_state_dict(state))
        if name.startswith("backbone.")
    ):
        backbone.init_cfg = None
    if not cfg.get("resume"):
        return {}
    if not {"meta", "message_hub"} <= state.keys():
        raise UserError(
            f"{cfg.load_from} holds weights without the state of a run, so there "
            "is nothing to resume; to start from the weights, give "
            f"--cfg-options load_from={cfg.load_from} in place of --resume"
        )
    # MMEngine restores it too, after it has built the sampler with another.
    if cfg.get("randomness", {}).get("seed") is None:
        cfg.randomness = {
            **cfg.get("randomness", {}),
            "seed": state["meta"].get("seed"),
        }
    return state["meta"].get("dataset_meta") or {}
