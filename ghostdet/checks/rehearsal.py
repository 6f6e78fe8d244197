"""A run in small: the run's own Runner, for two iterations in a folder of its own."""

from __future__ import annotations

import copy
import gc
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from ghostdet.checks.datasets import DatasetCheck
from ghostdet.checks.findings import Finding
from ghostdet.engine.setup import use_run_components
from ghostdet.utils.components import iter_datasets

QUICK = 2  # images in a batch of a quick rehearsal
FOLLOWED = 100_000  # iterations whose rate is computed, in a second


class RehearsalRunner(Runner):
    """MMEngine's Runner that writes no log, and uses datasets that are loaded.

    Attributes:
        checks: The datasets.
        stage: What :meth:`train` is at, for the name of a failure.
    """

    checks: Sequence[DatasetCheck] = ()
    stage = "train step"

    def _log_env(self, env_cfg: dict) -> None:
        """Log nothing: it takes a second to ask for the environment."""

    def build_visualizer(self, visualizer: Any = None) -> Visualizer:
        """Build the visualizer, and send nothing to its back ends."""
        built = super().build_visualizer(visualizer)
        built._vis_backends.clear()
        return built

    def _init_model_weights(self) -> None:
        self.stage = "pretrained weights"
        super()._init_model_weights()

    def load_or_resume(self) -> None:
        """Load what the run starts from."""
        super().load_or_resume()
        self.stage = "train step"

    def build_dataloader(self, dataloader: dict, *args: Any, **kwargs: Any) -> Any:
        """Build a data loader that loads in this process."""
        cfg = copy.deepcopy(dataloader)
        for _, own in iter_datasets(cfg["dataset"]):
            for check in self.checks:
                if check.cfg == own and check.dataset is not None:
                    own.clear()
                    own["type"] = lambda dataset=check.dataset: dataset
                    break
        loader: DataLoader = Runner.build_dataloader(cfg, *args, **kwargs)
        loader.num_workers = loader.timeout = 0
        return loader


@contextmanager
def rehearsal(
    cfg: Config, folder: str, offline: Sequence[str]
) -> Iterator[RehearsalRunner]:
    """Build a run's Runner for a rehearsal, and forget what it leaves in MMEngine.

    Args:
        cfg: The run's config, which is not changed.
        folder: Folder that the Runner writes into.
        offline: Weights that are not loaded.

    Yields:
        The Runner, with the run's loops and hooks, in one process, without weights.
    """
    cfg = copy.deepcopy(cfg)
    use_run_components(cfg)
    if isinstance(cfg.default_hooks.checkpoint, dict):
        cfg.default_hooks.checkpoint.pop("out_dir", None)
    cfg.update(
        work_dir=folder,
        experiment_name="rehearsal",
        log_level="ERROR",
        launcher="none",
        model_wrapper_cfg=None,
        resume=False,
    )
    for part in (cfg.model, cfg.model.get("backbone") or {}):
        init = part.get("init_cfg")
        source = init.get("checkpoint") if isinstance(init, dict) else None
        if source and (source in offline or cfg.get("load_from")):
            part["init_cfg"] = None
    if cfg.get("load_from") in offline:
        cfg.load_from = None
    if "accumulative_counts" in cfg.optim_wrapper:
        cfg.optim_wrapper.accumulative_counts = 1  # so that each iteration is a step
    managers = list(_subclasses(ManagerMixin))
    before = [list(manager._instance_dict.items()) for manager in managers]
    terminate = signal.getsignal(signal.SIGTERM)
    is_initialized = torch.distributed.is_initialized
    torch.distributed.is_initialized = lambda: False  # other ranks wait for this one
    pretty_text = Config.pretty_text
    Config.pretty_text = ""  # MMEngine formats it again and again, for a second
    try:
        for manager in managers:  # a visualizer of the same name would be used
            manager._instance_dict.clear()
        yield RehearsalRunner.from_cfg(cfg)
    finally:
        torch.distributed.is_initialized = is_initialized
        Config.pretty_text = pretty_text
        if (
            terminate is not None
            and threading.current_thread() is threading.main_thread()
        ):
            signal.signal(signal.SIGTERM, terminate)  # GracefulStopHook has set it
        for logger in MMLogger._instance_dict.values():
            if logger.instance_name.startswith("rehearsal"):
                for handler in logger.handlers:
                    handler.close()
        for manager, instances in zip(managers, before):
            manager._instance_dict.clear()
            manager._instance_dict.update(instances)
        gc.collect()
        torch.cuda.empty_cache()


def _subclasses(kind: type) -> Iterator[type]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _subclasses(sub)


class RehearsedError(Exception):
    """Raised after the last iteration of a rehearsal."""


class RehearsalHook(Hook):
    """Observe a training run, and stop it.

    Args:
        images: The most images in a batch; None for the run's batches.
        iterations: Number of iterations after which it stops.

    Attributes:
        losses: The losses of each iteration by name.
        objects: Number of objects of each iteration's batch; None for a classifier.
        learnt: Names of the parameters that got a gradient.
    """

    priority = "LOWEST"

    def __init__(self, images: int | None = None, iterations: int = 2) -> None:
        self.images, self.iterations = images, iterations
        self.trained = self.evaluated = 0
        self.cuts: list[tuple[Any, int]] = []
        self.losses: list[dict[str, float]] = []
        self.objects: list[int | None] = []
        self.learnt: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Predict a batch; make batches small, and watch gradients."""
        if runner.val_loop is not None:
            runner.stage = "val step"
            self.evaluated = self._cut(runner.val_dataloader)
            runner.model.eval()
            batch = next(iter(runner.val_dataloader))
            with torch.no_grad():
                predictions = runner.model.val_step(batch)
            runner.val_evaluator.process(predictions, batch)
        runner.stage = "train step"
        runner.train_loop.val_begin = math.inf  # no evaluation follows
        self.trained = self._cut(runner.train_dataloader)
        for name, parameter in runner.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(
                    lambda _, name=name: self.learnt.add(name)
                )

    def _cut(self, loader: DataLoader) -> int:
        """Make a loader's batches small enough; return their size."""
        sampler = getattr(loader.batch_sampler, "batches", loader.batch_sampler)
        size = getattr(sampler, "batch_size", 1)
        self.cuts.append((sampler, size))
        sampler.batch_size = min(size, self.images or size)
        return sampler.batch_size

    def restore(self) -> None:
        """Give all loaders the run's batches again."""
        for sampler, size in self.cuts:
            sampler.batch_size = size

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Note the losses; raise ``RehearsedError`` in the last iteration.

        Args:
            runner: The Runner.
            batch_idx: Number of the batch in its epoch.
            data_batch: The batch.
            outputs: The losses by name.
        """
        self.losses.append(
            {
                name: float(torch.as_tensor(value).detach())
                for name, value in (outputs or {}).items()
                if "loss" in name
            }
        )
        samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else ()
        counts = [
            len(sample.gt_instances)
            for sample in (samples if isinstance(samples, list) else ())
            if "gt_instances" in sample
        ]
        self.objects.append(sum(counts) if counts else None)
        if len(self.losses) == self.iterations:
            raise RehearsedError

    def findings(
        self, runner: Runner, cfg: Config, ranks: int = 1
    ) -> Iterator[Finding]:
        """Report losses, memory, and parameters that do not learn.

        Args:
            runner: The Runner, after the iterations.
            cfg: The run's config.
            ranks: Number of processes of the run.
        """
        check = "train step"
        idle = [
            name
            for name, parameter in runner.model.named_parameters()
            if parameter.requires_grad and name not in self.learnt
        ]
        if idle and not cfg.get("find_unused_parameters"):
            yield Finding(
                check,
                "warn" if ranks == 1 else "fail",  # DDP waits for all gradients
                f"{len(idle)} parameters get no gradient, such as {idle[0]}",
                "They are not trained; in several processes, add "
                "find_unused_parameters=True",
            )
        for name in self.losses[0]:
            if (
                "bbox" in name
                and any(self.objects)
                and not any(losses.get(name) for losses in self.losses)
            ):
                yield Finding(
                    check,
                    "warn",
                    f"{name} is 0 in each iteration: the detector "
                    f"matches none of {sum(self.objects)} objects",
                    "Let sizes and strides of anchors or points fit the objects at the "
                    "size to which images are resized",
                )
        if runner.val_loop is not None:
            text = f"a batch of at most {self.evaluated} images"
            yield Finding("val step", "pass", text)
        losses = [x.get("loss", sum(x.values())) for x in self.losses]
        text = ", ".join(f"{loss:.3g}" for loss in losses)
        text = f"{len(losses)} x {self.trained} images at most: loss {text}"
        if torch.cuda.is_available():
            peak, (_, total) = (
                torch.cuda.max_memory_allocated(),
                torch.cuda.mem_get_info(),
            )
            text += f"; at most {size_text(peak)} of the GPU's {size_text(total)}"
        elif sys.platform != "win32":
            import resource

            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            peak *= 1 if sys.platform == "darwin" else 1024
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            text += f"; the process took {size_text(peak)} of {size_text(total)}"
        yield Finding(check, "pass", text)


def learning_rates(
    runner: Runner, cfg: Config, ranks: int
) -> tuple[dict[int, float], list[tuple[int, int]]]:
    """Step through a run's schedules, from the first iteration to the last.

    Args:
        runner: The Runner, after a rehearsal.
        cfg: The run's config.
        ranks: Number of processes of the run.

    Returns:
        The rate by iteration, where it may have changed, of at most
        :data:`FOLLOWED` iterations; and for each schedule the last step that it counts
        to, and those that there are.
    """
    loader, loop = runner.train_dataloader, runner.train_loop
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
    schedulers = runner.build_param_scheduler(copy.deepcopy(cfg.param_scheduler))
    (group, *_) = runner.optim_wrapper.param_groups
    epoch = len(loader) if epochs else length  # an iteration loop is one epoch
    counted, endless = [], 10**9
    for scheduler in schedulers:
        ends = [scheduler.end, getattr(scheduler, "T_max", 0)]
        ends += getattr(scheduler, "milestones", ())
        last = max(end for end in (*ends, 0) if end < endless)
        counted.append((last, epochs or 1 if scheduler.by_epoch else length))
    rates, iteration = {}, 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch expects steps of the optimiser
        while iteration <= length and len(rates) < FOLLOWED:
            rates[iteration] = group["lr"]
            busy = [s for s in schedulers if not s.by_epoch and s.last_step < s.end]
            for scheduler in busy:
                scheduler.step()
            iteration += 1 if busy else epoch - (iteration - 1) % epoch
            if (iteration - 1) % epoch == 0:
                for scheduler in schedulers:
                    if scheduler.by_epoch:
                        scheduler.step()
    return rates, counted


def size_text(count: float) -> str:
    """Give bytes in words, such as ``'1.5 GB'``."""
    unit, units = "bytes", ["TB", "GB", "MB", "kB"]
    while count >= 1000 and units:
        count, unit = count / 1000, units.pop()
    return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
