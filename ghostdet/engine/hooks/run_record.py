"""A run's record, ``run.json`` in its work directory."""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from ghostdet.engine.batch_size import global_batch
from ghostdet.engine.resume import archive_old_checkpoints
from ghostdet.utils.files import RECORD, atomic_write, expendable


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Write the start and the results of a run into ``run.json``.

    ``run.json`` is an object with these keys:

    - ``name``: name of the config file, without its suffix.
    - ``config``: the config as plain JSON, with classes by their names.
    - ``starts``: one entry for each time that the run was started or resumed: ``seed``,
      ``ranks``, ``device``, ``images`` (in one step of the optimiser), ``versions``
      and ``resumed_from_iter``.
    - ``unit``, ``length``, ``epoch_length``: the end of the run, in ``'epoch'`` or
      ``'iter'``, and the number of iterations in an epoch, null with ``'iter'``.
    - ``losses``: ``iter``, ``seconds`` and the losses, averaged since the last entry.
    - ``evaluations``: ``iter``, ``seconds`` and the metrics.
    - ``trained``: number of iterations done.
    - ``stopped``: whether the run ended early by its evaluations.

    ``seconds`` counts training without start-up and evaluation, over all starts. A run
    that resumes keeps the record beside its checkpoint, up to the resumed iteration.

    Args:
        interval: Number of iterations between two entries of ``losses``.
    """

    priority = 80  # before a checkpoint is written, which notes the time

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self._seconds = 0.0
        self._since: float | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Continue the clock of the run that is resumed."""
        if runner._resume:
            self._seconds = checkpoint.get("meta", {}).get("train_seconds", 0.0)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note how long the run has trained."""
        checkpoint["meta"]["train_seconds"] = self._seconds

    def before_train(self, runner: Runner) -> None:
        """Archive earlier checkpoints; begin or continue the record."""
        loop, cfg = runner.train_loop, runner.cfg
        self.path = Path(runner.work_dir, RECORD)
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        resumed = runner._load_from if runner._resume else None
        earlier: dict[str, Any] = {}
        if is_main_process():
            earlier = _earlier(resumed, runner.iter)
            archive_old_checkpoints(runner.work_dir, resumed)
        self.record = dict(
            name=Path(cfg.filename or "ghostdet").stem,
            config=cfg.to_dict(),
            starts=[*earlier.get("starts", []), _start(runner)],
            unit="epoch" if by_epoch else "iter",
            length=loop.max_epochs if by_epoch else loop.max_iters,
            epoch_length=len(loop.dataloader) if by_epoch else None,
            **{key: earlier.get(key, []) for key in ("losses", "evaluations")},
        )
        self._write(runner.iter)

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Start the clock at the first iteration."""
        if self._since is None:
            self._since = time.monotonic()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Note the losses."""
        self._count()
        done = runner.iter + 1
        if done % self.interval == 0:
            losses = {
                name.removeprefix("train/"): float(values.mean(self.interval))
                for name, values in runner.message_hub.log_scalars.items()
                if name.startswith("train/") and "loss" in name
            }
            self._note("losses", done, losses)

    def before_val_epoch(self, runner: Runner) -> None:
        """Stop the clock."""
        self._count()
        self._since = None

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Note the metrics."""
        if runner._train_loop is not None:
            values = {
                name: float(value)
                for name, value in (metrics or {}).items()
                if isinstance(value, (int, float, np.number))
            }
            self._note("evaluations", runner.iter, values)

    def after_train(self, runner: Runner) -> None:
        """Write the record of the finished run."""
        self.record["stopped"] = getattr(runner.train_loop, "stop_training", False)
        self._write(runner.iter)

    def _count(self) -> None:
        if self._since is not None:
            now = time.monotonic()
            self._seconds += now - self._since
            self._since = now

    def _note(self, key: str, done: int, values: dict[str, float]) -> None:
        entry = dict(iter=done, seconds=round(self._seconds, 3), **values)
        others = [old for old in self.record[key] if old["iter"] != done]
        self.record[key] = [*others, entry]
        self._write(done)

    def _write(self, done: int) -> None:
        self.record["trained"] = done
        if is_main_process():
            text = json.dumps(self.record, indent=1, default=_plain)
            with expendable(RECORD):
                atomic_write(self.path, text + "\n")


def _earlier(resumed: str | None, done: int) -> dict[str, Any]:
    """Read the record of the resumed run, up to its checkpoint."""
    path = Path(resumed).with_name(RECORD) if resumed else None
    if path is None or not path.is_file():
        return {}
    with expendable(f"{path} cannot be read, so the record"):
        record = json.loads(path.read_text())
        parts = {
            key: [entry for entry in record[key] if entry["iter"] <= done]
            for key in ("losses", "evaluations")
        }
        return dict(starts=[*record["starts"]], **parts)
    return {}


def versions() -> dict[str, str]:
    """Give the versions of Python and of the packages that a run depends on."""
    names = "ghostdet torch torchvision mmengine mmcv mmdet cv2".split()
    versions = {name: sys.modules[name].__version__ for name in names}
    return {**versions, "Python": platform.python_version()}


def _start(runner: Runner) -> dict[str, Any]:
    """Describe the machine and the software of this start."""
    gpu = torch.cuda.is_available()
    return dict(
        seed=runner.seed,
        ranks=get_world_size(),
        device=torch.cuda.get_device_name() if gpu else "CPU",
        images=global_batch(runner.cfg).total,
        versions=versions(),
        resumed_from_iter=runner.iter,
    )


def _plain(value: Any) -> str:
    """Convert a value that JSON lacks to text, a class to its name."""
    return getattr(value, "__name__", None) or str(value)
