"""Training loops in which the future follows from the seed and the iteration alone.

Random numbers are drawn anew for each iteration, from (seed, iteration, rank), and for
each sample, from (seed, iteration, index). So there is no state of a generator, in a
process or in a data loader's worker, that a checkpoint would have to hold: a run that
resumes, at an epoch or in the middle of one, goes on as if it had not stopped, and
samples do not depend on how many workers or ranks load them.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATA_SAMPLERS, DATASETS, LOOPS
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

EXACT = {
    "EpochBasedTrainLoop": "ResumableEpochLoop",
    "IterBasedTrainLoop": "ResumableIterLoop",
}


def seed_all(*numbers: int) -> None:
    """Seed Python's, NumPy's and torch's generators from a tuple of numbers.

    Args:
        numbers: Not negative; another tuple gives independent streams.

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


class Sample(int):
    """The index of a sample, which knows the iteration that it is for."""

    iteration: int

    def __new__(cls, index: int, iteration: int) -> Sample:
        """An index and an iteration."""
        self = super().__new__(cls, index)
        self.iteration = iteration
        return self

    def __reduce__(self) -> tuple:
        """Pickle both, on the way to a worker."""
        return Sample, (int(self), self.iteration)


@DATA_SAMPLERS.register_module()
class NumberedBatchSampler(Sampler):
    """Batches of :class:`Sample`, numbered by iteration.

    Args:
        sampler: Gives indices.
        batch_size: Of each batch.
        drop_last: Leave out a last batch of fewer.
        batch_sampler: Config of the batch sampler that forms the batches, if not in
            the order of the indices.

    Attributes:
        first: The iteration of the first batch; counted on when all are given.
        skipped: How many batches the next pass leaves out at its beginning.

    Example:
        >>> batches = NumberedBatchSampler(range(6), batch_size=2)
        >>> batches.skipped = 1
        >>> [(batch, batch[0].iteration) for batch in batches]
        [([2, 3], 1), ([4, 5], 2)]
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        drop_last: bool = False,
        batch_sampler: dict | None = None,
    ) -> None:
        self.sampler = sampler  # whose epoch DistSamplerSeedHook sets
        if batch_sampler is None:
            self.batches = BatchSampler(sampler, batch_size, drop_last)
        else:
            self.batches = DATA_SAMPLERS.build(
                batch_sampler,
                default_args=dict(sampler=sampler, batch_size=batch_size),
            )
        self.first = self.skipped = 0

    def __iter__(self) -> Iterator[list[Sample]]:
        """Give the batches of a pass."""
        skipped, self.skipped = self.skipped, 0
        iteration = self.first
        for iteration, batch in enumerate(self.batches, self.first):
            if iteration >= self.first + skipped:
                yield [
                    Sample(index, iteration) if isinstance(index, int) else index
                    for index in batch
                ]
        self.first = iteration + 1

    def __len__(self) -> int:
        """The number of batches of a whole pass."""
        return len(self.batches)


@DATASETS.register_module()
class SeededDataset:
    """A data set whose samples draw from streams of their own.

    Args:
        dataset: The data set, or its config. Its attributes are this one's.
        seed: Of the run.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        own = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        vars(self).update(dataset=own, seed=seed)

    def __getitem__(self, index: int) -> Any:
        """Give a sample; with a :class:`Sample`, always the same for its iteration."""
        if isinstance(index, Sample):
            seed_all(self.seed, index.iteration, int(index))
            index = int(index)
        return self.dataset[index]

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        """What else MMEngine and MMDetection ask of a data set."""
        if name.startswith("__") or name == "dataset":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set what hooks set of a data set, such as another ``pipeline``."""
        setattr(self.dataset, name, value)


@FUNCTIONS.register_module()
def outlive_sigterm(worker_id: int) -> None:
    """Let a data loader's worker heed a SIGTERM of its parent alone.

    A cluster may send it to all processes, and then the run needs its workers until it
    has written a checkpoint. They end with their parent.
    """

    def watch() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=watch, daemon=True).start()


def _numbered(dataloader: dict, seed: int) -> dict:
    """A data loader's config with numbered batches and seeded samples."""
    loader = {**dataloader}
    loader.pop("disable_subprocess_warning", None)  # of MMEngine's worker_init_fn
    loader.setdefault("worker_init_fn", dict(type="outlive_sigterm"))
    loader["batch_sampler"] = dict(
        type="mmdet.NumberedBatchSampler",
        batch_sampler=loader.get("batch_sampler"),
        drop_last=loader.pop("drop_last", False),
    )
    if not isinstance(loader["dataset"], SeededDataset):
        loader["dataset"] = dict(
            type="mmdet.SeededDataset", dataset=loader["dataset"], seed=seed
        )
    return loader


class _Exact:
    """What both loops do."""

    runner: Runner
    dataloader: DataLoader

    def __init__(self, runner: Runner, dataloader: dict, **kwargs: Any) -> None:
        self._loader_cfg = _numbered(dataloader, runner.seed)
        super().__init__(runner, self._loader_cfg, **kwargs)

    def _seed(self) -> None:
        # One number more, so that no sample has this stream. Not 0: NumPy fills up with
        # zeros.
        seed_all(self.runner.seed, self._iter, get_rank(), 1)


@LOOPS.register_module()
class ResumableEpochLoop(_Exact, EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` that resumes exactly, within an epoch as well."""

    #: Batches of an epoch in the run that wrote the checkpoint, where it says so.
    resumed_length: int | None = None

    def run(self) -> nn.Module:
        """Train; evaluate where a run ended before its last evaluation."""
        length = len(self.dataloader)
        if not length:
            images = len(self.dataloader.dataset)
            raise UserError(
                f"{images:,} images make no batch on each rank, and drop_last=True "
                "leaves them out; --cfg-options train_dataloader.batch_size="
                f"{max(1, images // get_world_size())}"
            )
        if self.resumed_length != length and self._iter != self._epoch * length:
            self._restart_epoch(length)
        ended = self._epoch >= self._max_epochs
        model = super().run()
        if ended and self.runner.val_loop is not None:
            self.runner.val_loop.run()
        return model

    def _restart_epoch(self, length: int) -> None:
        """Count iterations by the epochs of this run, from the start of one."""
        print_log(
            f"The checkpoint is of epochs of another length than {length}: epoch "
            f"{self._epoch + 1} starts from its beginning",
            logger="current",
        )
        self._iter = self._epoch * length
        self.runner.optim_wrapper.initialize_count_status(
            self.runner.model, self._iter, self._max_iters
        )

    def run_epoch(self) -> None:
        """Iterate what is left of an epoch."""
        length = len(self.dataloader)
        self._done = self._iter - self._epoch * length
        self.dataloader.batch_sampler.first = self._epoch * length
        self.dataloader.batch_sampler.skipped = self._done
        super().run_epoch()

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Run an iteration with random numbers of its own."""
        self._seed()
        super().run_iter(idx + self._done, data_batch)


@LOOPS.register_module()
class ResumableIterLoop(_Exact, IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that resumes exactly.

    With ``InfiniteSampler`` it does so at once, where MMEngine's loads all images again
    that were trained on.
    """

    def run(self) -> nn.Module:
        """Train, from the batch on that is next; make up for the last evaluation."""
        ended = self._iter >= self._max_iters
        sampler = self.dataloader.batch_sampler.sampler
        if self._iter and not ended and isinstance(sampler, InfiniteSampler):
            # A new one: the old one's sampler has begun.
            cfg = {**self._loader_cfg, "dataset": self.dataloader.dataset}
            self.dataloader_iterator = self.dataloader = None
            self.dataloader = self.runner.build_dataloader(
                cfg,
                seed=self.runner.seed,
                diff_rank_seed=self.runner._randomness_cfg.get("diff_rank_seed", False),
            )
            self.dataloader.batch_sampler.skipped = self._iter
            self.dataloader_iterator = _Resumed(self.dataloader, self._iter)
        model = super().run()
        if ended and self.runner.val_loop is not None:
            self.runner.val_loop.run()
        return model

    def run_iter(self, data_batch: Any) -> None:
        """Run an iteration with random numbers of its own."""
        self._seed()
        super().run_iter(data_batch)


class _Resumed:
    """Stands in for the batches that were trained on, which the loop asks for first."""

    def __init__(self, dataloader: DataLoader, passed: int) -> None:
        self.batches = iter(dataloader)
        self.passed = passed

    def __next__(self) -> Any:
        if self.passed:
            self.passed -= 1
            return None
        return next(self.batches)


def use_resumable_loops(cfg: Config) -> None:
    """Let MMEngine's names of training loops in a config mean those of this module.

    Args:
        cfg: The config, which is changed.
    """
    train_cfg = cfg.train_cfg
    kind = train_cfg.get("type")
    if kind is None:
        by_epoch = train_cfg.pop("by_epoch", True)
        kind = "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop"
    train_cfg.type = EXACT.get(type_name(kind), kind)
