"""Checkpoints that survive: written whole or not at all, and found again."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ghostdet.components import type_name
from ghostdet.errors import UserError

from .batch import global_batch
from .checkpoint import read_checkpoint

CHECKPOINTS = ("epoch_*.pth", "iter_*.pth", "best_*.pth")
PARTIAL = ".partial"
MARKER = "torchelastic_run_id"  # of the run that began in a folder


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
            write_whole(Path(runner.work_dir, "last_checkpoint"), self.last_ckpt)


class WholeFileBackend(LocalBackend):
    """The local disk, on which a file is whole or not there."""

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write a file as :func:`write_whole` does."""
        write_whole(Path(filepath), obj)


register_backend("whole", WholeFileBackend)


def write_whole(path: Path, content: bytes | memoryview | str) -> None:
    """Write a file under another name, flush it to the disk and rename it.

    Args:
        path: The file, which stays as it is if anything fails.
        content: What it is to hold.

    Raises:
        UserError: If it cannot be written, such as for want of space.
    """
    content = content.encode() if isinstance(content, str) else content
    partial = path.with_name(path.name + PARTIAL)
    try:
        free = shutil.disk_usage(path.parent).free
        if free < len(content):
            raise OSError(
                f"it needs {len(content) / 1e6:.0f} MB, and the disk has "
                f"{free / 1e6:.0f} MB left"
            )
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); what was written "
            "before is as it was. Make room, and try again; a run goes on with --resume"
        ) from error


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


def _kind(path: Path) -> str:
    """``epoch`` or ``iter``."""
    return path.stem.partition("_")[0]


def _newest_first(folder: Path) -> list[Path]:
    """Checkpoints of a folder, by their numbers, or, of both kinds, by their times."""
    found = [path for kind in CHECKPOINTS[:2] for path in folder.glob(kind)]
    found = [path for path in found if path.stem.partition("_")[2].isdigit()]
    if len({_kind(path) for path in found}) > 1:
        return sorted(found, key=lambda path: -path.stat().st_mtime_ns)
    return sorted(found, key=lambda path: -int(path.stem.partition("_")[2]))


def find_whole_checkpoint(work_dir: str | Path) -> str | None:
    """Find the newest checkpoint of a run that can be resumed.

    Args:
        work_dir: Where the run wrote.

    Returns:
        Its path, or None where there is none at all. Those that are damaged are
        passed over, and named in the log.

    Raises:
        UserError: If there are checkpoints and none is whole, ``last_checkpoint``
            names one and there is none, or all were set aside.
    """
    folder = Path(work_dir)
    pointer = folder / "last_checkpoint"
    text = pointer.read_text().strip() if pointer.is_file() else ""
    candidates = _newest_first(folder)
    # It may be in another folder, or the folder may have been moved.
    named = next(
        (
            path
            for path in (Path(text), folder / Path(text).name)
            if text and path.is_file()
        ),
        None,
    )
    if named is not None and (
        named not in candidates or len({_kind(path) for path in candidates}) > 1
    ):
        candidates.insert(0, named)
    damaged = []
    for path in dict.fromkeys(map(str, candidates)):
        try:
            if {"meta", "message_hub"} <= read_checkpoint(path).keys():
                break
            damaged.append(f"{path} (weights alone)")
        except UserError as error:
            damaged.append(f"{path} ({error.text.splitlines()[0]})")
    else:
        if damaged:
            raise UserError(
                f"no checkpoint in {work_dir} can be resumed: {'; '.join(damaged)}. "
                "Start again with another --work-dir"
            )
        if text:
            raise UserError(
                f"{pointer} names {text!r}, and there is no such file; give the path "
                "of another checkpoint to --resume"
            )
        if aside := sorted(folder.glob("earlier_*")):
            raise UserError(
                f"there is nothing to resume in {work_dir}; what was there before is "
                f"in {aside[-1]}: give --resume {aside[-1]}/NAME.pth, or leave "
                "--resume out to start from the beginning"
            )
        return None
    if damaged:
        print_log(
            f"Passed over what is not whole: {'; '.join(damaged)}. Resuming from "
            f"{path}",
            logger="current",
            level=logging.WARNING,
        )
    return path


def begun(work_dir: str | Path) -> bool:
    """Whether torchrun's present run has written checkpoints before, in this folder."""
    marker = Path(work_dir, MARKER)
    return (
        marker.is_file()
        and marker.read_text() == os.environ.get("TORCHELASTIC_RUN_ID")
        and (
            Path(work_dir, "last_checkpoint").is_file()
            or bool(_newest_first(Path(work_dir)))
        )
    )


def set_aside(work_dir: str | Path, resumed: str | None = None) -> None:
    """Move checkpoints out of the way of a run that does not go on from them.

    Otherwise it would overwrite them one by one, and a restart might resume one.

    Args:
        work_dir: Where the run writes.
        resumed: The checkpoint from which it goes on. If it is in ``work_dir``, only
            newer ones are moved; ``last_checkpoint`` names it.
    """
    folder = Path(work_dir)
    found = [path for pattern in CHECKPOINTS for path in folder.glob(pattern)]
    pointer = folder / "last_checkpoint"
    ordered = _newest_first(folder)
    same = [path.resolve() == Path(resumed or "").resolve() for path in ordered]
    if any(same):
        found = ordered[: same.index(True)]
    if found:
        number = 1
        while (aside := folder / f"earlier_{number}").exists():
            number += 1
        aside.mkdir()
        for path in found:
            path.rename(aside / path.name)
        print_log(
            f"{work_dir} held checkpoints of another run, or later ones: they are in "
            f"{aside} now; --resume CHECKPOINT goes on from one of them",
            logger="current",
        )
    if resumed is not None:
        write_whole(pointer, resumed)
    else:
        pointer.unlink(missing_ok=True)
    write_whole(folder / MARKER, os.environ.get("TORCHELASTIC_RUN_ID", ""))


def use_safe_checkpoints(cfg: Config) -> None:
    """Let ``CheckpointHook`` in a config mean :class:`SafeCheckpointHook`.

    Args:
        cfg: The config, which is changed.
    """
    hook = (cfg.get("default_hooks") or {}).get("checkpoint")
    if isinstance(hook, dict) and type_name(hook.type) == "CheckpointHook":
        hook.type = "SafeCheckpointHook"
