"""A run in small: the run's own Runner, for two iterations in a folder of its own."""

from __future__ import annotations

import copy
import gc
import math
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from mmcv.transforms import Compose
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner, ValLoop
from mmengine.utils import ManagerMixin
from mmengine.visualization import Visualizer
from torch.utils.data import DataLoader

from ghostdet.checks.datasets import DatasetCheck
from ghostdet.checks.findings import Finding
from ghostdet.config import reason
from ghostdet.engine.hooks.checkpoint import evaluates
from ghostdet.engine.hooks.graceful_stop import TERMINATED, keep_sigterm, losses_of
from ghostdet.engine.setup import init_weights, use_run_components
from ghostdet.errors import UserError
from ghostdet.utils.components import iter_datasets
from ghostdet.utils.text import megabytes


class RehearsalRunner(Runner):
    """MMEngine's Runner that writes no log, and uses datasets that are loaded.

    Attributes:
        checks: The datasets.
        metrics: The known results of an evaluation.
        stage: The present step, which names a failure.
    """

    checks: Sequence[DatasetCheck] = ()
    metrics: dict[str, float] = {}
    stage = "train step"
    rehearses = True  # for hooks

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
        """Load the checkpoint that the run starts from."""
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
def rehearsal(cfg: Config, folder: str, weights: bool) -> Iterator[RehearsalRunner]:
    """Build a run's Runner for a rehearsal, and forget what it leaves in MMEngine.

    The Runner has the run's loops and hooks, in one process, and writes into the
    folder. It loads the config's weights if ``weights`` is set.
    """
    cfg = copy.deepcopy(cfg)
    use_run_components(cfg)
    for hook in (*cfg.default_hooks.values(), *cfg.custom_hooks):
        if isinstance(hook, dict):
            hook.pop("out_dir", None)
    cfg.update(work_dir=folder, experiment_name="rehearsal", log_level="ERROR")
    cfg.update(launcher="none", model_wrapper_cfg=None, resume=False)
    if not weights or cfg.get("load_from"):  # in place of the others
        cfg.merge_from_dict(dict.fromkeys(init_weights(cfg)))
        cfg.load_from = cfg.load_from if weights else None
    optimizer = cfg.optim_wrapper.get("optimizer") or {}
    if kind := optimizer.pop("optimizer_type", None):  # ZeRO, for several processes
        optimizer.type = kind
    if cfg.optim_wrapper.get("accumulative_counts", 1) > 1:
        cfg.optim_wrapper.accumulative_counts = 1  # so that each iteration is a step
    with ExitStack() as stack:
        stack.enter_context(keep_sigterm())
        for manager in _subclasses(ManagerMixin):  # a visualizer would be used again
            stack.enter_context(patch.dict(manager._instance_dict, clear=True))
        # Other ranks wait for this one. Formatting a config takes a second, each time.
        stack.enter_context(patch("torch.distributed.is_initialized", lambda: False))
        stack.enter_context(patch.object(Config, "pretty_text", ""))
        try:
            yield RehearsalRunner.from_cfg(cfg)
        finally:
            for logger in MMLogger._instance_dict.values():
                for handler in logger.handlers:
                    handler.close()
    gc.collect()
    torch.cuda.empty_cache()


def _subclasses(kind: type) -> Iterator[type]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _subclasses(sub)


class RehearsedError(Exception):
    """Raised after the last iteration of a rehearsal."""


class RehearsalHook(Hook):
    """Observe a training run, and stop it after some iterations."""

    priority = "LOWEST"

    def __init__(self, iterations: int = 2) -> None:
        self.iterations, self.objects = iterations, 0  # in all batches
        self.losses: list[dict[str, float]] = []  # by name, for each iteration
        self.learnt: set[str] = set()  # names of parameters that got a gradient
        self.notes: list[str] = []  # about hooks and metrics
        self.evaluates = False

    def before_train(self, runner: Runner) -> None:
        """Predict a batch, and watch gradients."""
        if threading.current_thread() is threading.main_thread():
            # GracefulStopHook would write a checkpoint.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
        if isinstance(runner.val_loop, ValLoop):
            runner.stage = "val step"
            runner.call_hook("before_val")
            runner.call_hook("before_val_epoch")
            runner.model.eval()
            runner.val_loop.run_iter(0, next(iter(runner.val_dataloader)))
            runner.stage = "val metrics"
            self._evaluate(runner)
        runner.stage, loop = "train step", runner.train_loop
        self.evaluates = evaluates(loop)
        loop.val_begin = math.inf  # no evaluation follows
        loop.stop_training = False  # whatever the ground truth's metrics
        for hook in runner.hooks:
            if hasattr(hook, "minutes"):  # the rehearsal has no limit
                hook.minutes = math.inf
            Compose(getattr(hook, "switch_pipeline", ()))
        for name, parameter in runner.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(
                    lambda _, name=name: self.learnt.add(name)
                )

    def _evaluate(self, runner: Runner) -> None:
        """Give the hooks metrics: COCO's, and others computed from the batch."""
        for metric in runner.val_loop.evaluator.metrics:
            if isinstance(metric, CocoMetric):
                if "segm" in metric.metrics and "masks" not in metric.results[0][1]:
                    raise UserError("metric is 'segm', and no masks are predicted")
                continue
            try:
                found = metric.evaluate(len(metric.results))
                runner.metrics = {**runner.metrics, **found}
            except Exception as error:  # it may need more than a batch
                text = f"{type(metric).__name__} fails on a batch: {reason(error)}"
                self.notes.append(text)
        if runner.metrics:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                runner.call_hook("after_val_epoch", metrics=runner.metrics)
            self.notes += [str(warning.message) for warning in said]
        for hook in runner.hooks:
            keys = getattr(hook, "key_indicators", [getattr(hook, "monitor", None)])
            rules = getattr(hook, "rules", [getattr(hook, "rule", None)])
            for key, rule in zip(keys, rules):
                value, kind = runner.metrics.get(key), type(hook).__name__
                if value == -1 or (value == 1 and rule == "less"):
                    text = f"{kind} keeps the checkpoint with the "
                    text += "lowest" if rule == "less" else "highest"
                    text += f" {key}, but the ground truth has {value:g}"
                    self.notes.append(text)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Note the losses; raise ``RehearsedError`` in the last iteration."""
        self.losses.append(losses_of(outputs))
        samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else ()
        for sample in samples if isinstance(samples, list) else ():
            self.objects += len(sample.get("gt_instances", ()))
        runner.log_processor.get_log_after_iter(runner, batch_idx, "train")
        if len(self.losses) == self.iterations:
            raise RehearsedError

    def findings(self, runner: Runner) -> Iterator[Finding]:
        """Report losses, memory, and parameters that do not learn."""
        if runner.val_loop is not None:
            own = isinstance(runner.val_loop, ValLoop)
            name = type(runner.val_loop).__name__
            text = "predicted a batch" if own else f"not tried: {name}"
            yield Finding("val step", "pass", text)
            if not self.evaluates:
                text = "no evaluation comes before the end of training"
                yield Finding("val_begin", "warn", text, "Lower train_cfg.val_begin")
        remedy = f"The evaluator gives {', '.join(runner.metrics)}" * bool(self.notes)
        for note in self.notes:
            yield Finding("val metrics", "warn", note, remedy)
        parameters = runner.model.named_parameters()
        idle = [n for n, p in parameters if p.requires_grad and n not in self.learnt]
        if idle and not runner.cfg.get("find_unused_parameters"):
            text = f"{len(idle)} parameters get no gradient, such as {idle[0]}"
            remedy = "They are not trained; several GPUs need find_unused_parameters="
            yield Finding("train step", "warn", text, f"{remedy}True")
        for name in self.losses[0]:
            zero = not any(losses.get(name) for losses in self.losses)
            if "bbox" in name and self.objects and zero:
                text = f"{name} is 0: the detector matches none of {self.objects} "
                remedy = "Let anchors or points fit the objects, at the size to which "
                remedy += "images are resized"
                yield Finding("train step", "warn", f"{text}objects", remedy)
        losses = [x.get("loss", sum(x.values())) for x in self.losses]
        text = f"loss {', '.join(f'{loss:.3g}' for loss in losses)}"
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated()
            total = torch.cuda.mem_get_info()[1]
            text += f"; {megabytes(peak)} of the GPU's {megabytes(total)}"
        yield Finding("train step", "pass", text)
