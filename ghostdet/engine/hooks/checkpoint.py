"""Checkpoints that survive: written whole or not at all, and found again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ghostdet.engine.batch_size import global_batch
from ghostdet.errors import UserError
from ghostdet.utils.components import type_name
from ghostdet.utils.files import PARTIAL, atomic_write


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """``CheckpointHook`` that leaves a whole checkpoint at every moment.

    MMEngine's deletes the oldest checkpoint, writes the new one under its final name,
    and then its name into ``last_checkpoint``. Here a checkpoint is written under
    another name, flushed to the disk and renamed; then ``last_checkpoint`` is, in the
    same way; then the oldest is deleted. Where the disk is too full, the run ends with
    all earlier checkpoints intact.

    Takes the arguments of :class:`mmengine.hooks.CheckpointHook`. On a backend other
    than the local disk it does as that does.
    """

    def before_train(self, runner: Runner) -> None:
        """Remove what an interrupted save left, and follow the global batch."""
        super().before_train(runner)
        self._local = isinstance(self.file_backend, LocalBackend)
        if self._local:
            self.backend_args = dict(backend="whole")
        if self._local and is_main_process():
            for partial in Path(self.out_dir).glob(f"*{PARTIAL}"):
                partial.unlink()
        batch = global_batch(runner.cfg).total
        if self._resumed_batch not in (None, batch) and _scaled(runner.cfg):
            _rescale(runner, batch / self._resumed_batch)
            print_log(
                f"Resumed with a global batch of {batch} images, after "
                f"{self._resumed_batch}: learning rates x {batch}/"
                f"{self._resumed_batch}",
                logger="current",
            )

    #: The batch that the learning rates of the resumed checkpoint followed.
    _resumed_batch: int | None = None
    #: Whether those of this run follow it: unless the resumed ones did not.
    _follows: bool = True

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note what a resumed checkpoint is of."""
        meta = checkpoint.get("meta", {})
        if not runner._resume:
            return
        runner.train_loop.resumed_length = meta.get("epoch_length")
        self._follows = meta.get("scaled_lr", False)
        if self._follows:
            self._resumed_batch = meta["global_batch"]

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the batch; refuse weights that are not finite."""
        checkpoint["meta"].update(
            global_batch=global_batch(runner.cfg).total,
            scaled_lr=self._follows and _scaled(runner.cfg),
            epoch_length=len(runner.train_loop.dataloader),
        )
        broken = [
            name
            for name, value in checkpoint["state_dict"].items()
            if value.is_floating_point() and not value.isfinite().all()
        ]
        if broken:
            raise UserError(
                f"{len(broken)} of the model's weights are not finite, such as "
                f"{broken[0]}, so no checkpoint was written; the last good one is "
                f"{last_checkpoint(runner) or 'none'}. Lower the learning rate, or "
                "clip gradients with optim_wrapper.clip_grad=dict(max_norm=35)"
            )

    def save_now(self, runner: Runner) -> str:
        """Write a checkpoint after this iteration, whatever the interval is.

        Args:
            runner: The Runner, in ``after_train_iter``.

        Returns:
            Its path.
        """
        meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
        self._write(runner, f"iter_{runner.iter + 1}.pth", meta)
        return self.last_ckpt

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict[str, Any]
    ) -> None:
        """Write the checkpoint of a step, then delete the oldest."""
        if not self._local:
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        outdated = None
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.keep_ckpt_ids.popleft()
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        self._write(runner, self.filename_tmpl.format(step), meta)
        if outdated is not None and is_main_process():
            path = Path(self.out_dir, self.filename_tmpl.format(outdated))
            path.unlink(missing_ok=True)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Write the best checkpoint, if it is that, and then delete the one before."""
        if not self.save_best or not self._local:
            super()._save_best_checkpoint(runner, metrics)
            return
        # MMEngine's deletes those that it knows of first.
        one = "best_ckpt_path" in vars(self)
        before = {"": self.best_ckpt_path} if one else dict(self.best_ckpt_path_dict)
        if one:
            self.best_ckpt_path = None
        else:
            self.best_ckpt_path_dict = dict.fromkeys(before)
        super()._save_best_checkpoint(runner, metrics)
        now = {"": self.best_ckpt_path} if one else self.best_ckpt_path_dict
        for key, path in before.items():
            if now[key] is None:  # it is still the best
                now[key] = path
            elif path and path != now[key] and is_main_process():
                Path(path).unlink(missing_ok=True)
        if one:
            self.best_ckpt_path = now[""]

    def _write(self, runner: Runner, name: str, meta: dict[str, Any]) -> None:
        """Write a checkpoint, and its name into ``last_checkpoint``."""
        self.last_ckpt = os.path.join(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            atomic_write(Path(runner.work_dir, "last_checkpoint"), self.last_ckpt)


class AtomicBackend(LocalBackend):
    """The local disk, on which a file is whole or not there."""

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write a file as :func:`atomic_write` does."""
        atomic_write(Path(filepath), obj)


register_backend("whole", AtomicBackend)


def last_checkpoint(runner: Runner) -> str | None:
    """The checkpoint that a run has written last, or was resumed from."""
    file = Path(runner.work_dir, "last_checkpoint")
    return file.read_text().strip() if file.is_file() else None


def _scaled(cfg: Config) -> bool:
    """Whether the learning rates of a config follow its batch."""
    return bool((cfg.get("auto_scale_lr") or {}).get("scaled_to"))


def _rescale(runner: Runner, factor: float) -> None:
    """Multiply all learning rates, now and to come."""
    for group in runner.optim_wrapper.param_groups:
        for key in ("lr", "initial_lr"):
            if key in group:
                group[key] *= factor
    for scheduler in runner.param_schedulers or []:
        if getattr(scheduler, "param_name", None) == "lr":
            scheduler.base_values = [value * factor for value in scheduler.base_values]
            if getattr(scheduler, "eta_min", None):
                scheduler.eta_min *= factor


def use_safe_checkpoints(cfg: Config) -> None:
    """Let ``CheckpointHook`` in a config mean :class:`SafeCheckpointHook`.

    Args:
        cfg: The config, which is changed.
    """
    hook = (cfg.get("default_hooks") or {}).get("checkpoint")
    if isinstance(hook, dict) and type_name(hook.type) == "CheckpointHook":
        hook.type = "SafeCheckpointHook"
