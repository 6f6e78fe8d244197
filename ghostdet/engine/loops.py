"""Training loops that resume exactly, at any iteration.

Random generators are seeded for each iteration, from (seed, iteration, rank), and for
each sample, from (seed, iteration, index). Checkpoints therefore need no generator's
state: a run that resumes, at an epoch or within one, continues as if it had not
stopped, and samples do not depend on the number of workers or ranks that load them.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from itertools import chain, islice, repeat
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATA_SAMPLERS, LOOPS
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.registry import FUNCTIONS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Sampler

from ghostdet.errors import UserError
from ghostdet.utils.components import type_name

RESUMABLE = {
    "EpochBasedTrainLoop": "mmdet.ResumableEpochLoop",
    "IterBasedTrainLoop": "mmdet.ResumableIterLoop",
}


def seed_all(*numbers: int) -> None:
    """Seed Python's, NumPy's and torch's generators from a tuple of numbers.

    Args:
        numbers: Non-negative numbers. Different tuples give independent streams.

    Example:
        >>> seed_all(0, 7, 1)
        >>> first = np.random.rand()
        >>> seed_all(0, 7, 1)
        >>> np.random.rand() == first
        True
    """
    seed, *others = np.random.SeedSequence(numbers).generate_state(3).tolist()
    random.seed(seed)
    np.random.seed(others[0])
    torch.manual_seed(others[1])


@DATA_SAMPLERS.register_module()
class NumberedBatchSampler(Sampler):
    """Batches of pairs: the iteration, and the index of a sample.

    Args:
        sampler: A sampler of indices.
        batch_size: Number of samples in a batch.
        drop_last: Leave out a last batch that is smaller.
        batch_sampler: Config of another batch sampler that forms the batches.

    Attributes:
        first: Iteration of the next pass's first batch.
        skipped: Number of batches to leave out at the start of the next pass.

    Example:
        >>> batches = NumberedBatchSampler(range(6), batch_size=2)
        >>> batches.skipped = 1
        >>> list(batches)
        [[(1, 2), (1, 3)], [(2, 4), (2, 5)]]
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        drop_last: bool = False,
        batch_sampler: dict | None = None,
    ) -> None:
        self.sampler = sampler  # DistSamplerSeedHook sets its epoch
        if batch_sampler is None:
            self.batches = BatchSampler(sampler, batch_size, drop_last)
        else:
            self.batches = DATA_SAMPLERS.build(
                batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size)
            )
        self.first = self.skipped = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the batches of a pass."""
        skipped, self.skipped = self.skipped, 0
        iteration = self.first
        for iteration, batch in enumerate(self.batches, self.first):
            if iteration >= self.first + skipped:
                yield [(iteration, index) for index in batch]
        self.first = iteration + 1

    def __len__(self) -> int:
        """Return the number of batches in a full pass."""
        return len(self.batches)


class SeededDataset:
    """A dataset that seeds the random generators for each sample.

    Args:
        dataset: The dataset. Attributes are read from it and set on it.
        seed: Seed of the run.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        vars(self).update(dataset=dataset, seed=seed)

    def __getitem__(self, index: int | tuple[int, int]) -> Any:
        """Load a sample, which depends on the seed, the iteration and the index."""
        if isinstance(index, tuple):
            iteration, index = index
            # A frame of a video has two numbers.
            seed_all(self.seed, iteration, *np.ravel(index).tolist())
        return self.dataset[index]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        """Read other attributes from the dataset, such as ``metainfo``."""
        if name.startswith("__") or name == "dataset":  # during unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set attributes of the dataset, such as ``pipeline``."""
        setattr(self.dataset, name, value)


@FUNCTIONS.register_module()
def heed_parent(worker_id: int, parent: int) -> None:
    """Let a data loader's worker end when its parent ends it or is gone.

    A cluster may send SIGTERM to all processes; the run then needs its workers until
    it has written a checkpoint. Without this, a worker whose parent was killed may wait
    forever to hand over its batch. Systems without ``sigtimedwait`` (macOS, Windows)
    keep PyTorch's behaviour.
    """
    if not hasattr(signal, "sigtimedwait"):
        return

    starter = os.getppid()  # the trainer, or its fork server

    def watch() -> None:
        # An orphan's parent is process 1; in a container, that may be the trainer.
        while (starter != 1 or parent == 1) and os.getppid() == starter:
            received = signal.sigtimedwait({signal.SIGTERM}, 1)
            if received is not None and received.si_pid in (parent, starter):
                break
        os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=watch, daemon=True).start()


def _numbered(dataloader: dict) -> dict:
    """Give a data loader's config numbered batches."""
    loader = {**dataloader}
    loader.pop("disable_subprocess_warning", None)  # for MMEngine's worker_init_fn
    watch = dict(type="heed_parent", parent=os.getpid())
    loader.setdefault("worker_init_fn", watch)
    loader["batch_sampler"] = dict(
        type="mmdet.NumberedBatchSampler",
        batch_sampler=loader.get("batch_sampler"),
        drop_last=loader.pop("drop_last", False),
    )
    return loader


class _Resumable:
    """Common part of both loops."""

    runner: Runner
    dataloader: DataLoader

    def __init__(self, runner: Runner, dataloader: dict, **kwargs: Any) -> None:
        self._loader_cfg = _numbered(dataloader)
        super().__init__(runner, self._build(runner, self._loader_cfg), **kwargs)

    @staticmethod
    def _build(runner: Runner, cfg: dict) -> DataLoader:
        """Build a data loader, whose sampler sees the dataset itself."""
        diff = runner._randomness_cfg.get("diff_rank_seed", False)
        loader = runner.build_dataloader(cfg, seed=runner.seed, diff_rank_seed=diff)
        # PyTorch keeps others from setting it.
        vars(loader)["dataset"] = SeededDataset(loader.dataset, runner.seed)
        return loader

    def _seed(self) -> None:
        # A fourth number keeps this stream apart from the samples'. It must not be 0,
        # since NumPy pads with zeros.
        seed_all(self.runner.seed, self._iter, get_rank(), 1)

    def run(self) -> nn.Module:
        """Train, and say so if nothing was left."""
        first = self._iter
        model = super().run()
        if self._iter == first:
            print_log(
                f"The run ended at iteration {first}: nothing is left to train",
                logger="current",
            )
        return model


@LOOPS.register_module()
class ResumableEpochLoop(_Resumable, EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` that resumes exactly, even within an epoch."""

    #: Number of batches in an epoch of the run that wrote the checkpoint, if known.
    resumed_length: int | None = None

    def run(self) -> nn.Module:
        """Train."""
        length = len(self.dataloader)
        if not length:
            images = len(self.dataloader.dataset)
            raise UserError(
                f"{images:,} images do not fill one batch for each rank, and "
                "drop_last=True drops them; type --cfg-options "
                f"train_dataloader.batch_size={max(1, images // get_world_size())}"
            )
        if self.resumed_length != length:
            text = f"The checkpoint's epochs did not have {length} batches"
            restart_epoch(self, text)
        return super().run()

    def run_epoch(self) -> None:
        """Run the remaining iterations of an epoch."""
        length = len(self.dataloader)
        self._done = self._iter - self._epoch * length
        self.dataloader.batch_sampler.first = self._epoch * length
        self.dataloader.batch_sampler.skipped = self._done
        super().run_epoch()

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Seed the generators and run an iteration."""
        self._seed()
        super().run_iter(idx + self._done, data_batch)


def restart_epoch(loop: EpochBasedTrainLoop, reason: str) -> None:
    """Restart an epoch that was resumed within; iterations count this run's epochs."""
    first = loop._epoch * len(loop.dataloader)
    if loop._iter != first:
        text = f"{reason}: epoch {loop._epoch + 1} starts from its beginning"
        print_log(text, logger="current")
        loop._iter = first
        loop.runner.optim_wrapper.initialize_count_status(
            loop.runner.model, first, loop._max_iters
        )


class _Batches(chain):
    """Batches one after another."""

    def skip_iter(self, num_iters: int) -> None:
        """Skip batches, as onedl-mmengine's loop asks for it."""
        next(islice(self, num_iters, num_iters), None)


@LOOPS.register_module()
class ResumableIterLoop(_Resumable, IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that resumes exactly.

    With ``InfiniteSampler`` it skips the batches that were trained on; MMEngine's loop
    loads their images again.
    """

    def run(self) -> nn.Module:
        """Train."""
        ended = self._iter >= self._max_iters
        sampler = self.dataloader.batch_sampler.sampler
        if self._iter and not ended and isinstance(sampler, InfiniteSampler):
            # Build it again, since the sampler has been iterated over.
            cfg = {**self._loader_cfg, "dataset": self.dataloader.dataset.dataset}
            self.dataloader_iterator = self.dataloader = None
            self.dataloader = self._build(self.runner, cfg)
            self.dataloader.batch_sampler.skipped = self._iter
            # The loop asks for those that were trained on first.
            self.dataloader_iterator = _Batches(
                repeat(None, self._iter), self.dataloader
            )
        return super().run()

    def run_iter(self, data_batch: Any) -> None:
        """Seed the generators and run an iteration."""
        self._seed()
        super().run_iter(data_batch)


def use_resumable_loops(cfg: Config) -> None:
    """Replace MMEngine's training loops in a config by the resumable ones."""
    train_cfg = cfg.train_cfg
    kind = train_cfg.get("type")
    if kind is None:
        by_epoch = train_cfg.pop("by_epoch", True)
        kind = "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop"
    train_cfg.type = RESUMABLE.get(type_name(kind), kind)
