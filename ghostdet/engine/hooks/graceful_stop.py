"""What ends a run before its end: losses that are not finite, and SIGTERM."""

from __future__ import annotations

import math
import signal
import sys
import threading
from typing import Any

import torch
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    barrier,
    get_rank,
    get_world_size,
)
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ghostdet.engine.hooks.checkpoint import SafeCheckpointHook, last_checkpoint
from ghostdet.errors import UserError
from ghostdet.utils.text import shorten

TERMINATED = 128 + signal.SIGTERM  # exit code, as shells give it


@HOOKS.register_module()
class GracefulStopHook(Hook):
    """Ends a run on all ranks at the same iteration, with nothing lost.

    After each iteration the ranks exchange two numbers: whether a loss was not finite,
    upon which all raise, and whether one got SIGTERM, which a cluster sends before it
    takes a machine, upon which a checkpoint is written and all exit with 143.
    """

    # Behind what belongs to an iteration (schedules are LOW), before checkpoints.
    priority = 85

    def before_train(self, runner: Runner) -> None:
        """Listen for SIGTERM."""
        self.terminated = False
        self._previous = None
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: Any) -> None:
        self.terminated = True  # and again: a cluster and torchrun may both send it

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Exchange what happened; raises ``UserError``, or exits.

        Args:
            runner: The Runner.
            batch_idx: Number of the batch in its epoch.
            data_batch: What was trained on.
            outputs: The losses, by name.
        """
        losses = {
            name: float(torch.as_tensor(value).detach())
            for name, value in (outputs or {}).items()
            if "loss" in name
        }
        diverged = not all(map(math.isfinite, losses.values()))
        state = torch.tensor([diverged, self.terminated], dtype=torch.int32)
        all_reduce(state, op="max")
        if state[0]:
            self._report(runner, losses, data_batch)
        # With gradients that are added up, a step is not to be lost half way.
        if state[1] and _stepped(runner):
            path = _checkpoints(runner).save_now(runner)
            barrier()  # where torchrun sees one rank leave, it ends the others
            _leave(f"wrote {path}", runner)

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Leave an evaluation, for which there is no time."""
        if self.terminated and runner._train_loop is not None:
            _leave(f"in an evaluation, {last_checkpoint(runner)} is the last", runner)

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _report(
        self, runner: Runner, losses: dict[str, float], data_batch: Any
    ) -> None:
        """Tell of all ranks where it happened, on each of them."""
        reports = all_gather_object((losses, _images(data_batch)))
        if get_rank():
            sys.exit(1)  # rank 0 has said it all
        lines = [
            f"rank {rank}: "
            + ", ".join(f"{name} {value:g}" for name, value in terms.items())
            + f"; images {shorten(ids, 16)}"
            for rank, (terms, ids) in enumerate(reports)
            if not all(map(math.isfinite, terms.values()))
        ]
        listing = "\n  ".join(lines)
        raise UserError(
            f"a loss is not finite at iteration {runner.iter + 1}:\n  {listing}\n"
            f"The last good checkpoint is {last_checkpoint(runner) or 'none'}. Look at "
            "these images (tools/check.py CONFIG --full), lower "
            "optim_wrapper.optimizer.lr, or clip gradients with "
            "optim_wrapper.clip_grad.max_norm=35"
        )


def _images(data_batch: Any) -> list[str]:
    """What the images of a batch are called, of a detector or a classifier."""
    samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else ()
    if isinstance(samples, dict):  # collated
        return samples.get("img_path", [])
    return [
        str(sample.metainfo.get("img_id", sample.metainfo.get("img_path")))
        for sample in samples or ()
        if hasattr(sample, "metainfo")
    ]


def _checkpoints(runner: Runner) -> SafeCheckpointHook:
    for hook in runner.hooks:
        if isinstance(hook, SafeCheckpointHook):
            return hook
    hook = SafeCheckpointHook()
    hook.before_train(runner)
    return hook


def _stepped(runner: Runner) -> bool:
    """Whether the optimiser has made its step, and adds up no gradients for another."""
    should_update = getattr(runner.optim_wrapper, "should_update", None)
    return should_update is None or should_update()


def _leave(what: str, runner: Runner) -> None:
    print_log(
        f"SIGTERM at iteration {runner.iter + 1}: {what}; --resume goes on from there",
        logger="current",
    )
    sys.exit(TERMINATED)


def lost_peer(error: RuntimeError) -> bool:
    """Whether an error says that another rank is gone.

    Args:
        error: What a collective operation raised.
    """
    return get_world_size() > 1 and (
        isinstance(error, torch.distributed.DistError)
        or any(
            text in str(error)
            for text in ("Connection closed by peer", "Connection reset by peer")
        )
    )
