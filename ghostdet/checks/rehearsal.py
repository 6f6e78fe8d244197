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
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin
from mmengine.visualization import Visualizer
from torch.utils.data import DataLoader

from ghostdet.checks.datasets import DatasetCheck
from ghostdet.checks.findings import Finding
from ghostdet.engine.setup import use_run_components
from ghostdet.utils.components import iter_datasets

ITERATIONS = 2
QUICK = 2  # images in a batch of a quick rehearsal


class RehearsalRunner(Runner):
    """MMEngine's Runner that writes no log, and uses datasets that are loaded.

    Attributes:
        checks: The datasets.
        offline: Leave weights as they are built.
        stage: What :meth:`train` is at, for the name of a failure.
    """

    checks: Sequence[DatasetCheck] = ()
    offline = False
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
        if not self.offline:
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
def rehearsal(cfg: Config, folder: str) -> Iterator[RehearsalRunner]:
    """Build a run's Runner for a rehearsal, and forget what it leaves in MMEngine.

    Args:
        cfg: The run's config, which is not changed.
        folder: Folder that the Runner writes into.

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
    managers = list(_subclasses(ManagerMixin))
    before = [list(manager._instance_dict.items()) for manager in managers]
    terminate = signal.getsignal(signal.SIGTERM)
    is_initialized = torch.distributed.is_initialized
    torch.distributed.is_initialized = lambda: False  # other ranks wait for this one
    pretty_text = Config.pretty_text
    Config.pretty_text = ""  # MMEngine formats it again and again, for a second
    try:
        yield RehearsalRunner.from_cfg(cfg)
    finally:
        torch.distributed.is_initialized = is_initialized
        Config.pretty_text = pretty_text
        if terminate and threading.current_thread() is threading.main_thread():
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
    """Observe a training run, and stop it after :data:`ITERATIONS`.

    Args:
        images: The most images in a batch; None for the run's batches.

    Attributes:
        losses: The losses of each iteration by name.
        objects: Number of objects of each iteration's batch; None for a classifier.
        learnt: Names of the parameters that got a gradient.
    """

    priority = "LOWEST"

    def __init__(self, images: int | None = None) -> None:
        self.images = images
        self.losses: list[dict[str, float]] = []
        self.objects: list[int | None] = []
        self.learnt: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Predict a batch; make batches small, and watch gradients."""
        if runner.val_loop is not None:
            runner.stage = "val step"
            runner.model.eval()
            batch = next(iter(runner.val_dataloader))
            with torch.no_grad():
                predictions = runner.model.val_step(batch)
            runner.val_evaluator.process(predictions, batch)
        runner.stage = "train step"
        runner.train_loop.val_begin = math.inf  # no evaluation follows
        sampler = runner.train_dataloader.batch_sampler
        sampler = getattr(sampler, "batches", sampler)
        size = getattr(sampler, "batch_size", 1)
        self.images = sampler.batch_size = min(size, self.images or size)
        for name, parameter in runner.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(
                    lambda _, name=name: self.learnt.add(name)
                )

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
        if len(self.losses) == ITERATIONS:
            raise RehearsedError

    def findings(self, runner: Runner, cfg: Config) -> Iterator[Finding]:
        """Report losses, memory, and parameters that do not learn.

        Args:
            runner: The Runner, after the iterations.
            cfg: The run's config.
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
                "warn",
                f"{len(idle)} parameters get no gradient, as {idle[0]}",
                "They are not trained; in several processes, add "
                "find_unused_parameters=True",
            )
        for name in self.losses[0]:
            if (
                "bbox" in name
                and any(self.objects)
                and not any(losses[name] for losses in self.losses)
            ):
                yield Finding(
                    check,
                    "warn",
                    f"{name} is 0 in {len(self.losses)} iterations: the detector "
                    f"matches none of {sum(self.objects)} objects",
                    "Let sizes and strides of anchors or points fit the objects at the "
                    "size to which images are resized",
                )
        if runner.val_loop is not None:
            text = f"a batch of {runner.val_dataloader.batch_size} images"
            yield Finding("val step", "pass", text)
        losses = [x.get("loss", sum(x.values())) for x in self.losses]
        text = ", ".join(f"{loss:.3g}" for loss in losses)
        text = f"{len(losses)} iterations of {self.images} images: loss {text}"
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
    runner: Runner, cfg: Config
) -> tuple[list[float], list[tuple[int, int]]]:
    """Step through a run's schedules, from the first iteration to the last.

    Args:
        runner: The Runner, after a rehearsal.
        cfg: The run's config.

    Returns:
        The first parameter group's rate at each iteration, up to where it changes no
        more, and for each schedule the last step that it counts to, and those that
        there are.
    """
    runner.optim_wrapper = runner.build_optim_wrapper(
        copy.deepcopy(cfg.optim_wrapper.to_dict())
    )
    schedulers = runner.build_param_scheduler(copy.deepcopy(cfg.param_scheduler))
    optimizer, length = runner.optim_wrapper.optimizer, runner.train_loop._max_iters
    # An iteration loop counts as one epoch.
    epochs = cfg.train_cfg.get("max_epochs", 1)
    epoch = len(runner.train_dataloader) if epochs > 1 else length
    counted, endless = [], 10**9
    for scheduler in schedulers:
        ends = [scheduler.end, getattr(scheduler, "T_max", 0)]
        ends += getattr(scheduler, "milestones", ())
        last = max(end for end in (*ends, 0) if end < endless)
        counted.append((last, epochs if scheduler.by_epoch else length))
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch expects steps of the optimiser
        for iteration in range(1, length + 1):
            rates.append(optimizer.param_groups[0]["lr"])
            if all(s.last_step >= s.end for s in schedulers):
                break
            for scheduler in schedulers:
                if not scheduler.by_epoch or iteration % epoch == 0:
                    scheduler.step()
    return rates, counted


def size_text(count: float) -> str:
    """Give bytes in words, such as ``'1.5 GB'``."""
    unit, units = "bytes", ["TB", "GB", "MB", "kB"]
    while count >= 1000 and units:
        count, unit = count / 1000, units.pop()
    return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
