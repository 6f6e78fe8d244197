"""Training on MMEngine's Runner."""

from __future__ import annotations

import copy
import math

from mmengine.config import Config
from mmengine.runner import Runner

from ghostdet.apis.runner import build_runner
from ghostdet.checks.findings import findings_table
from ghostdet.checks.run import check_run
from ghostdet.config import config_mistakes, require
from ghostdet.engine.distributed import lost_ranks, on_main_process, start_processes
from ghostdet.engine.hooks.graceful_stop import GracefulStopHook, keep_sigterm
from ghostdet.engine.resume import locked
from ghostdet.engine.setup import setup_run
from ghostdet.engine.vis_backends import forgive_logs
from ghostdet.errors import UserError
from ghostdet.utils.files import check_writable


def train(
    cfg: Config,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = True,
    check: bool = True,
    patience: int | None = None,
    minutes: float | None = None,
) -> Runner:
    """Train a detector or classifier, with the config's evaluations.

    Args:
        cfg: A config from :func:`load_config`.
        resume: ``'auto'`` for the latest checkpoint in ``cfg.work_dir``, or the path
            of a checkpoint.
        amp: Train in mixed precision on a GPU: bf16 where it has that, else fp16.
        auto_scale_lr: Scale the learning rate from the config's
            ``auto_scale_lr.base_batch_size``, if it has one, to this run's batch size.
        check: Rehearse the run quickly first (:func:`~ghostdet.checks.check_run`).
        patience: Stop after this number of evaluations without a better metric: the
            config's ``save_best``, or else ``coco/bbox_mAP`` or ``accuracy/top1``.
        minutes: Write a checkpoint and exit after this time of training, evaluations
            included.

    Returns:
        The Runner, after training.

    Raises:
        UserError: If the dataset, a checkpoint or an option cannot be used, the work
            directory cannot be written or is another run's, the disk is full, a loss is
            not finite or another rank is lost.
        SystemExit: With code 143 on SIGTERM and 0 after ``minutes``, after a
            checkpoint is written.
    """
    require(cfg, "model", "train_dataloader", "train_cfg", "optim_wrapper")
    for option, value in {"--patience": patience, "--minutes": minutes}.items():
        if value is not None and not 0 < value < math.inf:
            raise UserError(
                f"{option} is {value}, expected a number above 0, as in {option} 10"
            )
    with config_mistakes(cfg, reading=True):
        start_processes(cfg)
    check_writable(cfg.work_dir)
    keys = dict(resume=False, load_from=None, model=None)
    own = {key: copy.deepcopy(cfg.get(key, keys[key])) for key in keys}
    with locked(cfg.work_dir), config_mistakes(cfg), lost_ranks(), keep_sigterm():
        with config_mistakes(cfg, reading=True):
            learning_rate, dataset_meta = setup_run(
                cfg, resume, amp, auto_scale_lr, patience
            )
        if check:
            on_main_process(_check, cfg)
        runner = build_runner(cfg, ("train_loop", "val_loop"), dataset_meta)
        # The config in the work directory, for another run, has its own start.
        runner.cfg.update(own)
        runner.dump_config()
        # Not in the config: a resumed run would inherit it.
        for hook in runner.hooks:
            if isinstance(hook, GracefulStopHook) and minutes is not None:
                hook.minutes = minutes
        runner.logger.info(f"Learning rate: {learning_rate}")
        forgive_logs(runner)
        runner.train()
    return runner


def _check(cfg: Config) -> None:
    """Rehearse the run quickly, and print the findings."""
    findings = check_run(cfg, quick=True)
    failures = [finding for finding in findings if finding.status == "fail"]
    if failures:
        text = "\n".join(f"{f.check}: {f.error().text}" for f in failures)
        raise UserError(f"{text}\n--no-check starts the run all the same")
    *_, counts = findings_table(findings).splitlines()
    warnings = [finding for finding in findings if finding.status == "warn"]
    *warned, _, _ = findings_table(warnings).splitlines()
    print("\n".join([*warned, f"Rehearsal: {counts} (ghostdet check lists them)"]))
