"""The global batch of a run, which its learning rate follows."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mmengine.config import Config

from ghostdet.utils.components import type_name


@dataclass(frozen=True)
class GlobalBatch:
    """How many images one step of the optimiser sees.

    Args:
        ranks: Processes, that is GPUs.
        images: Images on each of them.
        accumulated: Batches whose gradients are added up before a step.
        base: The batch that the config's learning rate is for, or None.

    Example:
        >>> batch = GlobalBatch(ranks=4, images=2, accumulated=1, base=16)
        >>> batch.total, batch.factor
        (8, 0.5)
        >>> batch.describe(0.01)
        '4 ranks x 2 images x 1 accumulated = batch 8, for 16: lr 0.01 x 8/16 = 0.005'
    """

    ranks: int
    images: int
    accumulated: int = 1
    base: int | None = None

    @property
    def total(self) -> int:
        """Images in one step of the optimiser."""
        return self.ranks * self.images * self.accumulated

    @property
    def factor(self) -> float:
        """What the learning rate is multiplied by, in proportion to the batch."""
        return self.total / self.base if self.base else 1.0

    def describe(self, lr: float) -> str:
        """Show the arithmetic, from the config's learning rate to this run's."""
        batch = (
            f"{self.ranks} rank{'s' * (self.ranks > 1)} x {self.images} images x "
            f"{self.accumulated} accumulated = batch {self.total}"
        )
        if not self.base:
            return f"{batch}; lr {lr:g}, since the config names no base_batch_size"
        return (
            f"{batch}, for {self.base}: lr {lr:g} x {self.total}/{self.base} = "
            f"{lr * self.factor:g}"
        )


def global_batch(cfg: Config) -> GlobalBatch:
    """The batch of a run with this config, in as many processes as there are.

    Args:
        cfg: A config with ``train_dataloader`` and ``optim_wrapper``.

    Returns:
        The batch. ``base`` is ``auto_scale_lr.base_batch_size``, or, in a config that a
        run has written, the batch of that run.
    """
    auto = cfg.get("auto_scale_lr") or {}
    sampler = cfg.train_dataloader.get("batch_sampler") or {}
    return GlobalBatch(
        ranks=world_size(cfg),
        images=cfg.train_dataloader.get("batch_size") or sampler.get("batch_size", 1),
        accumulated=cfg.optim_wrapper.get("accumulative_counts", 1),
        base=auto.get("scaled_to") or auto.get("base_batch_size"),
    )


def world_size(cfg: Config) -> int:
    """The number of processes, as the launcher gives it in the environment."""
    variable = {
        "pytorch": "WORLD_SIZE",
        "slurm": "SLURM_NTASKS",
        "mpi": "OMPI_COMM_WORLD_SIZE",
    }.get(cfg.get("launcher", "none"))
    return int(os.environ[variable]) if variable else 1


def scale_lr(cfg: Config) -> str:
    """Let the learning rate follow the global batch.

    In proportion, as https://arxiv.org/abs/1706.02677. MMEngine's own scaling knows
    neither accumulation nor the absolute rates of a schedule (``eta_min``).

    Args:
        cfg: The config, which is changed.

    Returns:
        The arithmetic, for the log.
    """
    batch = global_batch(cfg)
    optimizer = cfg.optim_wrapper.get("optimizer") or {}
    if "lr" not in optimizer:  # several, or of a constructor's own
        return f"that of the config, for optim_wrapper.optimizer has no lr; {batch}"
    text = batch.describe(optimizer.lr)
    if not batch.base:
        return text
    # Done here, and noted for a run that resumes with another batch.
    cfg.auto_scale_lr.update(enable=False, scaled_to=batch.total)
    optimizer.lr *= batch.factor
    schedulers = cfg.get("param_scheduler") or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        for key in {"eta_min", "eta_max"} & scheduler.keys():
            if type_name(scheduler.type).endswith("LR"):
                scheduler[key] *= batch.factor
    return text
