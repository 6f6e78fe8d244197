"""Stop a run gracefully: on SIGTERM, after a time, and when a loss is not finite."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    barrier,
    get_rank,
    is_main_process,
)
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ghostdet.engine.hooks.checkpoint import save_now
from ghostdet.engine.resume import last_checkpoint
from ghostdet.errors import UserError
from ghostdet.utils.text import shorten

TERMINATED = 128 + signal.SIGTERM  # exit code, as in shells


@HOOKS.register_module()
class GracefulStopHook(Hook):
    """End a run on all ranks at the same iteration, without loss.

    After each iteration the ranks exchange three flags. If a loss was not finite on one
    of them, all raise an error. If one got SIGTERM, which a cluster sends before it
    takes a machine away, they write a checkpoint and exit with code 143. If the time is
    over on rank 0, they do so with code 0, with which torchrun does not restart them.

    Args:
        minutes: Longest time of training, evaluations included, from this start. An
            evaluation is not cut short.
    """

    # After the other hooks of an iteration (schedules are LOW), before checkpoints.
    priority = 85
    terminated = False

    def __init__(self, minutes: float = math.inf) -> None:
        self.minutes = minutes

    def before_train(self, runner: Runner) -> None:
        """Listen for SIGTERM, and start the clock."""
        self._since = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: Any) -> None:
        self.terminated = True  # twice, if a cluster and torchrun both send it

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Exchange the flags; raise ``UserError`` or exit if one is set."""
        losses = losses_of(outputs)
        diverged = not all(map(math.isfinite, losses.values()))
        late = time.monotonic() - self._since >= 60 * self.minutes
        flags = [diverged, self.terminated, late and is_main_process()]
        state = torch.tensor(flags, dtype=torch.int32)
        all_reduce(state, op="max")
        if state[0]:
            _report(runner, losses, data_batch)
        # Between two steps of the optimiser, accumulated gradients would be lost.
        should_update = getattr(runner.optim_wrapper, "should_update", lambda: True)
        if state[1:].any() and should_update():
            path = save_now(runner)
            barrier()  # torchrun ends all ranks as soon as one exits
            if state[1]:
                _exit(runner, f"wrote {path}")
            _exit(runner, f"wrote {path}", f"--minutes {self.minutes:g} ended", 0)

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Exit during an evaluation, which may take longer than there is time."""
        if self.terminated and runner._train_loop is not None:
            _exit(runner, f"in an evaluation, after {last_checkpoint(runner.work_dir)}")


@contextmanager
def keep_sigterm() -> Iterator[None]:
    """Restore the handler of SIGTERM, which hooks set in the main thread."""
    previous = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        main = threading.current_thread() is threading.main_thread()
        if main and previous is not None:
            signal.signal(signal.SIGTERM, previous)


def losses_of(outputs: dict[str, Any] | None) -> dict[str, float]:
    """Give the losses of an iteration by name, from the result of ``train_step``."""
    return {
        name: float(torch.as_tensor(value).detach())
        for name, value in (outputs or {}).items()
        if "loss" in name
    }


def _report(runner: Runner, losses: dict[str, float], data_batch: Any) -> None:
    """Collect the losses and images of the ranks, and raise the error on rank 0."""
    reports = all_gather_object((losses, _images(data_batch)))
    if get_rank():
        sys.exit(1)
    listing = "\n".join(
        f"  rank {rank}: "
        + ", ".join(f"{name} {value:g}" for name, value in terms.items())
        + f"; images {shorten(images, 16)}"
        for rank, (terms, images) in enumerate(reports)
        if not all(map(math.isfinite, terms.values()))
    )
    last = last_checkpoint(runner.work_dir) or "none"
    raise UserError(
        f"a loss is not finite at iteration {runner.iter + 1}:\n{listing}\n"
        f"The last valid checkpoint is {last}. Look at "
        "these images (tools/check.py CONFIG --full), lower "
        "optim_wrapper.optimizer.lr, or clip gradients with "
        "optim_wrapper.clip_grad.max_norm=35"
    )


def _images(data_batch: Any) -> list[str]:
    """List the names of the images in a detector's or classifier's batch."""
    samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else ()
    if isinstance(samples, dict):  # collated
        return samples.get("img_path", [])
    return [
        str(sample.metainfo.get("img_id", sample.metainfo.get("img_path")))
        for sample in samples or ()
        if hasattr(sample, "metainfo")
    ]


def _exit(
    runner: Runner, what: str, cause: str = "SIGTERM", code: int = TERMINATED
) -> None:
    print_log(
        f"{cause} at iteration {runner.iter + 1}: {what}; continue with --resume",
        logger="current",
    )
    sys.exit(code)
