"""Checkpoints that are always valid: written atomically, deleted last."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from ghostdet.engine.loops import ResumableEpochLoop, restart_epoch
from ghostdet.engine.resume import component_kinds, last_checkpoint, use_config_rates
from ghostdet.errors import UserError
from ghostdet.utils.components import type_name
from ghostdet.utils.files import PARTIAL, atomic_write

ATOMIC = "ghostdet.atomic"
MAP = "coco/bbox_mAP"  # the metric of detectors, unless a config names another


class AtomicBackend(LocalBackend):
    """The local disk, with atomic writes and removals that wait for the next write.

    MMEngine's hook removes the oldest checkpoint before it writes the new one.
    """

    #: Files to be removed; MMEngine makes an instance of the backend for each write.
    outdated: ClassVar[set[Path]] = set()

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write a file atomically, then remove the outdated ones."""
        atomic_write(Path(filepath), obj)
        self.outdated.discard(Path(filepath))
        best = Path(filepath).name.startswith("best_")  # no run is resumed from it
        for path in list(self.outdated):
            if not best or path.name.startswith("best_"):
                self.outdated.remove(path)
                path.unlink(missing_ok=True)

    def remove(self, filepath: str | Path) -> None:
        """Remove a file after the next write."""
        self.outdated.add(Path(filepath))


register_backend(ATOMIC, AtomicBackend)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """``CheckpointHook`` that leaves a valid checkpoint at every moment.

    A checkpoint is written under another name, flushed to the disk and renamed, and
    then the oldest one is deleted. If the disk is full, the run ends with all earlier
    checkpoints intact.

    Takes the arguments of :class:`mmengine.hooks.CheckpointHook`, and works as that
    hook where checkpoints are not written to the local disk.
    """

    missed = False  # whether the resumed state is from before its evaluation

    def before_train(self, runner: Runner) -> None:
        """Remove partial files; evaluate a resumed state that was not evaluated.

        The state lacks the consequences of its evaluation: a stop, a lower rate.
        """
        super().before_train(runner)
        loop = runner.train_loop
        own = isinstance(loop, ResumableEpochLoop)
        if isinstance(loop, EpochBasedTrainLoop) and not own:
            restart_epoch(loop, f"{type(loop).__name__} does not resume in an epoch")
        if isinstance(self.file_backend, LocalBackend):
            self.file_backend = AtomicBackend()
            self.backend_args = dict(backend=ATOMIC)
            if is_main_process():
                AtomicBackend.outdated.clear()
                for folder in {self.out_dir, runner.work_dir}:
                    for partial in Path(folder).glob(f"*{PARTIAL}"):
                        partial.unlink()
                if runner._resume and self.max_keep_ckpts > 0:
                    self._count(Path(runner._load_from))
        if self.missed and evaluation_due(loop):
            runner.val_loop.run()

    def _count(self, resumed: Path) -> None:
        """Remove a checkpoint of :func:`save_now` once the next one is written."""
        kept = map(self.filename_tmpl.format, self.keep_ckpt_ids)
        own = resumed.resolve().parent == Path(self.out_dir).resolve()
        if own and resumed.name.startswith("iter_") and resumed.name not in kept:
            AtomicBackend.outdated.add(resumed)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the epoch's length of the resumed run; its rates become the config's.

        If that run stopped early, say so.
        """
        if runner._resume:
            meta, loop = checkpoint["meta"], runner.train_loop
            loop.resumed_length = length = meta.get("epoch_length")
            by_epoch = isinstance(loop, EpochBasedTrainLoop)
            within = by_epoch and meta["iter"] != meta["epoch"] * (length or 0)
            self.missed = not (within or meta.get("evaluated"))
            use_config_rates(runner, checkpoint)
            for state in meta.get("early_stopping", {}).values():
                if state["stopped"]:
                    now = "Training on: --patience is larger now, or left out"
                    if loop.stop_training:
                        now = "To train on, give a larger --patience"
                    print_log(f"{state['stopped']}. {now}", logger="current")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note how the run trains; raise ``UserError`` if weights are not finite."""
        meta = checkpoint["meta"]
        meta.update(
            epoch_length=len(runner.train_loop.dataloader),
            # A checkpoint written again after an evaluation has the loop's counts.
            evaluated=(meta["epoch"], meta["iter"]) == (runner.epoch, runner.iter),
            kinds=component_kinds(runner),
        )
        broken = [
            name
            for name, value in checkpoint["state_dict"].items()
            if value.is_floating_point() and not value.isfinite().all()
        ]
        if broken:
            raise UserError(
                f"{len(broken)} of the model's weights are not finite, such as "
                f"{broken[0]}, so no checkpoint was written. The last valid one is "
                f"{last_checkpoint(runner.work_dir) or 'none'}. Lower "
                "optim_wrapper.optimizer.lr, or clip gradients with "
                "optim_wrapper.clip_grad.max_norm=35"
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Save the best state, and the last one of a run that stops early.

        ``save_best="auto"`` means mAP. MMEngine takes the first metric, which with
        ``classwise`` is the AP of one class.
        """
        first = {key: metrics[key] for key in (MAP,) if key in metrics}
        super().after_val_epoch(runner, {**first, **metrics})
        step = runner.epoch if self.by_epoch else runner.iter
        stops = getattr(runner._train_loop, "stop_training", False)
        if stops and self.save_last and step:
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_checkpoint_with_step(runner, step, meta=meta)


@HOOKS.register_module()
class ResumableEarlyStoppingHook(EarlyStoppingHook):
    """``EarlyStoppingHook`` that keeps its state in checkpoints.

    It says at which evaluation the metric was best. A run that stopped early stays
    stopped when it is resumed, unless ``patience`` is larger then.

    Takes the arguments of :class:`mmengine.hooks.EarlyStoppingHook`. With ``strict``, a
    metric that is missing raises ``UserError``.
    """

    priority = "LOW"  # before the best checkpoint is written
    best_at = "none"  # the evaluation with the best score
    stopped = ""  # when and why

    def before_train(self, runner: Runner) -> None:
        """Raise ``UserError`` if there will be no evaluation."""
        if not evaluates(runner.train_loop):
            raise UserError(
                f"early stopping watches {self.monitor}, and the config has no "
                "evaluation; set val_dataloader, val_evaluator, val_cfg and "
                "train_cfg.val_interval, or leave out --patience or the hook"
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Decide whether to stop."""
        if not metrics and self.rule == "greater" and _awaits_coco(runner.val_loop):
            metrics = {self.monitor: 0.0}
        if self.strict and self.monitor not in metrics:
            raise UserError(
                f"early stopping watches {self.monitor}, and the evaluator gives "
                f"{', '.join(metrics)}; name one of them, type --cfg-options "
                f"default_hooks.checkpoint.save_best={next(iter(metrics), 'METRIC')}"
            )
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        self._now = f"epoch {runner.epoch}" if by_epoch else f"iteration {runner.iter}"
        super().after_val_epoch(runner, metrics)

    def _check_stop_condition(self, current_score: float) -> tuple[bool, str]:
        best = self.best_score
        stop, reason = super()._check_stop_condition(current_score)
        if self.best_score != best:
            self.best_at = self._now
        if stop:
            self.stopped = f"Stopped early at {self._now} (best {self.monitor}: "
            self.stopped += f"{self.best_at}): {reason.rstrip('. ')}"
        return stop, self.stopped

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the best score, the evaluations since, and whether the run stopped."""
        names = "best_score", "best_at", "wait_count", "stopped", "patience"
        state = {name: getattr(self, name) for name in names}
        checkpoint["meta"].setdefault("early_stopping", {})[self.monitor] = state

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Continue from the noted state."""
        states = checkpoint.get("meta", {}).get("early_stopping", {})
        if runner._resume and self.monitor in states:
            state = {**states[self.monitor]}
            if self.patience > state.pop("patience"):
                state["stopped"] = ""
            vars(self).update(state)
            runner.train_loop.stop_training |= bool(self.stopped)


def _awaits_coco(loop: BaseLoop) -> bool:
    """Tell whether COCO's metrics are computed; without detections, there are none."""
    evaluator = getattr(loop, "evaluator", None)  # a project's own loop may have none
    coco = (m for m in getattr(evaluator, "metrics", ()) if isinstance(m, CocoMetric))
    return any(not metric.format_only for metric in coco)


def evaluation_due(loop: BaseLoop) -> bool:
    """Tell whether MMEngine's loop evaluates after its latest epoch or iteration."""
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    done = loop.epoch if by_epoch else loop.iter
    ended = done >= (loop.max_epochs if by_epoch else loop.max_iters)
    if loop.runner.val_loop is None or not hasattr(
        loop, "_decide_current_val_interval"
    ):
        return False
    loop._decide_current_val_interval()
    return done >= loop.val_begin and (ended or done % loop.val_interval == 0)


def evaluates(loop: BaseLoop) -> bool:
    """Tell whether a training loop evaluates, which it does at its end at the latest.

    Raises:
        UserError: If an interval is not a number of 1 or more.
    """
    for interval in getattr(loop, "dynamic_intervals", ()):  # or of val_interval
        if type(interval) is not int or interval < 1:
            raise UserError(
                f"train_cfg.val_interval is {interval!r}, expected 1 or more"
            )
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    length = loop.max_epochs if by_epoch else loop.max_iters
    begin = getattr(loop, "val_begin", math.inf)
    return loop.runner.val_loop is not None and begin <= length


def most_checkpoints(hook: CheckpointHook | None, loop: BaseLoop) -> int:
    """Count the most checkpoints that a hook keeps at a time.

    It deletes an old one once the new one is written.
    """
    if hook is None:
        return 0
    length = loop.max_epochs if hook.by_epoch else loop.max_iters
    steps = range(hook.save_begin, length + 1) if hook.interval > 0 else ()
    steps = {i for i in steps if i and (i - hook.save_begin) % hook.interval == 0}
    count = len({*steps, length} if hook.save_last else steps)
    keep, best = hook.max_keep_ckpts, hook.save_best or ()
    best = [best] if isinstance(best, str) else best
    return (keep + 1 if 0 < keep < count else count) + len(best)


def save_now(runner: Runner) -> Path:
    """Write a checkpoint in ``after_train_iter``, and return its path."""
    path = Path(runner.work_dir, f"iter_{runner.iter + 1}.pth")
    backend = dict(backend=ATOMIC)
    runner.save_checkpoint(
        runner.work_dir, path.name, by_epoch=False, backend_args=backend
    )
    if is_main_process():
        atomic_write(path.with_name("last_checkpoint"), str(path))
    return path


def use_safe_checkpoints(cfg: Config) -> None:
    """Replace ``CheckpointHook`` and ``EarlyStoppingHook`` in a config by ours."""
    hooks = cfg.get("default_hooks") or {}
    if "checkpoint" not in hooks:  # MMEngine's default
        hooks = {**hooks, "checkpoint": dict(type="CheckpointHook", interval=1)}
        cfg.default_hooks = hooks
    hook = cfg.default_hooks.checkpoint
    if isinstance(hook, dict) and type_name(hook.get("type")) == "CheckpointHook":
        hook.type = "SafeCheckpointHook"
    for hook in cfg.get("custom_hooks") or []:
        kind = hook.get("type") if isinstance(hook, dict) else None
        if type_name(kind) == "EarlyStoppingHook":
            hook.type = "ResumableEarlyStoppingHook"
