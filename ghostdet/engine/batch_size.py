"""The global batch size of a run, and the learning rate that follows it."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from torch import nn

from ghostdet.errors import UserError
from ghostdet.utils.components import type_name

FOLLOWED = 100_000  # rates beyond which schedules are not followed; it takes a second
# Arguments that give a schedule its length.
_LENGTHS = {"T_max", "milestones", "total_steps", "periods"}
_LATE = 0.1  # share of the highest rate, or of the training, that counts as small


@dataclass(frozen=True)
class GlobalBatch:
    """The number of images in one step of the optimiser.

    Args:
        ranks: Number of processes.
        images: Number of images in a batch of one process.
        accumulative_counts: Number of batches whose gradients are added up for a step.
        base: The batch size that the config's learning rate is for, or None.

    Example:
        >>> batch = GlobalBatch(ranks=4, images=2, accumulative_counts=1, base=16)
        >>> batch.total, batch.factor
        (8, 0.5)
        >>> batch.describe(0.01)
        '4 ranks x 2 images x 1 accumulated = batch 8, for 16: lr 0.01 x 8/16 = 0.005'
    """

    ranks: int
    images: int
    accumulative_counts: int = 1
    base: int | None = None

    @property
    def total(self) -> int:
        """Number of images in one step of the optimiser."""
        return self.ranks * self.images * self.accumulative_counts

    @property
    def factor(self) -> float:
        """Factor of the learning rate, in proportion to the batch size."""
        return self.total / self.base if self.base else 1.0

    def __str__(self) -> str:
        """Show how the batch is made up."""
        return (
            f"{self.ranks} rank{'s' * (self.ranks > 1)} x {self.images} images x "
            f"{self.accumulative_counts} accumulated = batch {self.total}"
        )

    def describe(self, lr: float) -> str:
        """Show how this run's learning rate follows from the config's."""
        if not self.base:
            return f"{self}; lr {lr:g}, since the config has no base_batch_size"
        return (
            f"{self}, for {self.base}: lr {lr:g} x {self.total}/{self.base} = "
            f"{lr * self.factor:g}"
        )


def global_batch(cfg: Config) -> GlobalBatch:
    """Compute the global batch of a run with this config in the current processes.

    Args:
        cfg: A config with ``train_dataloader`` and ``optim_wrapper``.

    Returns:
        The batch. ``base`` is ``auto_scale_lr.base_batch_size``, or, once
        :func:`scale_lr` has changed the config, the batch size it was scaled to.
    """
    auto = cfg.get("auto_scale_lr") or {}
    sampler = cfg.train_dataloader.get("batch_sampler") or {}
    return GlobalBatch(
        ranks=get_world_size(),
        images=cfg.train_dataloader.get("batch_size") or sampler.get("batch_size", 1),
        accumulative_counts=cfg.optim_wrapper.get("accumulative_counts", 1),
        base=auto.get("scaled_to") or auto.get("base_batch_size"),
    )


def scale_lr(cfg: Config) -> str:
    """Scale a config's learning rate with the global batch size, and say how.

    As in https://arxiv.org/abs/1706.02677. MMEngine's own scaling considers neither
    accumulation nor the absolute rates of a schedule (``eta_min``).
    """
    batch = global_batch(cfg)
    optimizer = cfg.optim_wrapper.get("optimizer") or {}
    if "lr" not in optimizer:  # several optimisers, or a constructor's own rates
        return f"the config's, since optim_wrapper.optimizer has no lr; {batch}"
    text = batch.describe(optimizer.lr)
    if not batch.base:
        return text
    # Noted in the config, for a run that resumes with another batch size.
    cfg.auto_scale_lr.scaled_to = batch.total
    optimizer.lr *= batch.factor
    for scheduler in _schedules(cfg):
        for key in {"eta_min", "eta_max"} & scheduler.keys():
            if type_name(scheduler.type).endswith("LR"):
                scheduler[key] *= batch.factor
    return text


def _schedules(cfg: Config) -> list[dict]:
    schedules = cfg.get("param_scheduler") or []
    return schedules if isinstance(schedules, list) else [schedules]


def follow_schedules(runner: Runner, batch: GlobalBatch) -> tuple[str, float, bool]:
    """Step through the schedules of a run.

    Args:
        runner: One rank of it, with ``lr`` as in the config.
        batch: The global batch size.

    Returns:
        The rates at which the run starts, at its highest and lowest, and at its end;
        the highest; and whether schedules fit the training: all that they would still
        change after its end is small, and the highest rate is ``lr``, and lasts.
    """
    rates, length, complete = _learning_rates(runner, batch.ranks)
    rates = {i: value * batch.factor for i, value in rates.items()}
    trained = {i: value for i, value in rates.items() if i <= length}
    top, last = max(trained, key=trained.get), max(trained)
    lowest = min((i for i in trained if i >= top), key=trained.get)
    margin = _LATE * rates[top]
    low, high = rates[lowest] - margin, rates[top] + margin
    off = [i for i, r in rates.items() if i > length and not low <= r <= high]
    off += [last] * (rates[last] > low + 2 * margin)
    later = [i for i in trained if i > _LATE * length] or [last]
    off += later * all(rates[i] < 1.1 * margin for i in later)
    shown = sorted({1, top, lowest, last, *off[:1]})
    course = "; ".join(f"{rates[i]:g} at iteration {i:,}" for i in shown)
    lr = runner.cfg.optim_wrapper.optimizer.lr * batch.factor
    if not complete:
        text = f"{course}; followed for {last:,} of {length:,} iterations"
        return text, rates[top], True
    own = any("eta_max" in schedule for schedule in _schedules(runner.cfg))
    if off or (rates[top] < (1 - _LATE) * lr and not own):
        return f"{course}, of {length:,}; lr is {lr:g}", rates[top], False
    return course, rates[top], True


def _learning_rates(runner: Runner, ranks: int) -> tuple[dict[int, float], int, bool]:
    """Compute the rate by iteration, where it may change.

    Schedules that are longer than the training are followed to their end, or for
    :data:`FOLLOWED` rates; within the training, for ten times as many.

    Returns:
        The rates, the training's length, and whether they were followed up to it.
    """
    cfg, loader, loop = runner.cfg, runner.train_dataloader, runner.train_loop
    epochs, length = cfg.train_cfg.get("max_epochs"), loop.max_iters
    sampler = getattr(loader.batch_sampler, "sampler", None)
    if epochs and hasattr(sampler, "num_samples"):  # one rank has made it
        sampler.num_samples = math.ceil(sampler.num_samples / ranks)
    if epochs:
        length = epochs * len(loader)
    optimizer = copy.deepcopy(cfg.optim_wrapper.optimizer.to_dict())
    runner.optim_wrapper = build_optim_wrapper(
        nn.Linear(1, 1), dict(type="OptimWrapper", optimizer=optimizer)
    )
    schedules = _schedules(cfg)
    schedulers = runner.build_param_scheduler(copy.deepcopy(schedules))
    for schedule, scheduler in zip(schedules, schedulers):
        if "end" not in schedule and _LENGTHS & schedule.keys():
            scheduler.end = math.inf  # MMEngine's default is the training's
    (group, *_) = runner.optim_wrapper.param_groups
    epoch = len(loader) if epochs else length  # an iteration loop is one epoch
    rates, iteration, active = {}, 1, schedulers
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch expects steps of the optimiser
            while (iteration <= length and len(rates) < 10 * FOLLOWED) or (
                active and len(rates) < FOLLOWED
            ):
                rates[iteration] = group["lr"]
                active = [s for s in schedulers if s._global_step < s.end]
                busy = [scheduler for scheduler in active if not scheduler.by_epoch]
                for scheduler in busy:
                    scheduler.step()
                iteration += 1 if busy else epoch - (iteration - 1) % epoch
                if (iteration - 1) % epoch == 0:
                    for scheduler in schedulers:
                        if scheduler.by_epoch:
                            scheduler.step()
    except (ValueError, ZeroDivisionError) as error:  # a schedule beyond its last step
        if iteration <= length:
            raise UserError(
                f"param_scheduler fails at iteration {iteration:,} of {length:,}: "
                f"{error}; let total_steps or end be the training's"
            ) from error
    return rates, length, iteration > length
