"""The check of a run: a rehearsal, with a list of findings."""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import mmcv
import mmdet
import mmengine
import numpy as np
import torch
import torchvision
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from ghostdet._version import __version__
from ghostdet.checks.classes import check_num_classes
from ghostdet.checks.datasets import DatasetCheck, first_sentence
from ghostdet.checks.findings import Finding
from ghostdet.checks.rehearsal import (
    ITERATIONS,
    QUICK,
    RehearsalHook,
    RehearsalRunner,
    RehearsedError,
    learning_rates,
    rehearsal,
)
from ghostdet.checks.truth import evaluate_truth
from ghostdet.config import config_mistakes, require
from ghostdet.engine.batch_size import global_batch
from ghostdet.errors import UserError
from ghostdet.evaluation.coco_metric import fix_coco_metric
from ghostdet.ops import operator_backend
from ghostdet.utils.components import iter_datasets, type_name
from ghostdet.utils.files import check_writable
from ghostdet.utils.text import quiet, shorten
from ghostdet.weights.checkpoint import read_checkpoint
from ghostdet.weights.source import REMOTE, cached

SAMPLE = 200  # images that are read of each dataset
_FACTOR = 10  # of the learning rate, above which scaling it is a warning


def check_run(cfg: Config, full: bool = False, quick: bool = False) -> list[Finding]:
    """Rehearse a training run in its work directory, and leave nothing there.

    The run's Runner is built, the datasets are loaded, the ground truth is evaluated,
    and two iterations, a batch of the evaluation and a checkpoint are tried. What
    only testing uses is at most a warning.

    Args:
        cfg: A config from :func:`~ghostdet.config.load_config`.
        full: Read all images, in a process for each core, with a progress bar; by
            default up to :data:`SAMPLE` of each dataset. Images of training and
            evaluation are compared by their pixels as well.
        quick: As ``tools/train.py`` does, read no images but those of the iterations,
            which are of two images; evaluate the ground truth of at most 200; use no
            network.

    Returns:
        What was found, of each check at least one finding. A run is of use if none has
        the status ``'fail'``.

    Example:
        >>> from ghostdet import CONFIGS
        >>> from ghostdet.config import load_config
        >>> cfg = load_config(CONFIGS + '/bccd/retinanet_ghostnet_small_bccd.py',
        ...                   cfg_options={'model.backbone.depth': 50})
        >>> [f.check for f in check_run(cfg, quick=True) if f.status == 'fail'][0]
        'config'
    """
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmdet"):
        with quiet(MMLogger.get_current_instance()), redirect_stdout(StringIO()):
            return list(_RunCheck(cfg, full, quick).findings())


@dataclass
class _RunCheck:
    """The checks, in their order, and what later ones need of earlier ones."""

    cfg: Config
    full: bool
    quick: bool
    # Datasets by the parts of the config that have them, such as val and test.
    data: list[tuple[list[str], DatasetCheck]] = field(default_factory=list)
    failed: bool = False

    def findings(self) -> Iterator[Finding]:
        yield _versions()
        yield _operators()
        with ExitStack() as stack:
            for finding in self._steps(stack):
                # Training has no need of what is tested afterwards.
                test_only = finding.check.startswith("test ")
                if test_only and finding.status == "fail":
                    finding = replace(finding, status="warn")
                self.failed = self.failed or finding.status == "fail"
                yield finding

    def _steps(self, stack: ExitStack) -> Iterator[Finding]:
        cfg = self.cfg
        runner = None
        yield from self._data()
        try:
            require(cfg, "model", "train_dataloader", "train_cfg", "optim_wrapper")
            check_writable(cfg.work_dir)
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=".check_", dir=cfg.work_dir)
            )
            with config_mistakes(cfg):
                runner = stack.enter_context(rehearsal(cfg, folder))
        except Exception as error:  # constructors raise what they like
            work_dir = isinstance(error, UserError) and "--work-dir" in error.text
            yield _failure("work dir" if work_dir else "config", error)
        if runner is not None:
            runner.checks = [check for _, check in self.data]
            yield self._model(runner)
        yield from self._overlap()
        if runner is None:
            return
        yield from self._num_classes(runner)
        for name, step in (
            ("evaluator", self._evaluators),
            ("pretrained weights", self._weights),
            ("train step", self._iterations),
        ):
            if name != "train step" or not self.failed:
                yield from _guarded(name, step(runner))

    def _data(self) -> Iterator[Finding]:
        """Load each dataset, once, and compare it with its files."""
        for part in ("train", "val", "test"):
            loader = self.cfg.get(f"{part}_dataloader")
            if not loader:
                continue
            for key, cfg in iter_datasets(loader.dataset, f"{part}_dataloader.dataset"):
                same = [parts for parts, check in self.data if check.cfg == cfg]
                if not same:
                    self.data.append(([part], DatasetCheck(cfg, key)))
                elif part not in same[0]:
                    same[0].append(part)
        count = 0 if self.quick else None if self.full else SAMPLE
        workers = _cores() if self.full else 0
        for parts, check in self.data:
            for finding in check.findings(count, workers, hashed=self.full):
                yield replace(finding, check=f"{'+'.join(parts)} {finding.check}")

    def _model(self, runner: RehearsalRunner) -> Finding:
        backbone = type(getattr(runner.model, "backbone", runner.model)).__name__
        count = sum(parameter.numel() for parameter in runner.model.parameters())
        return Finding(
            "config",
            "pass",
            f"{self.cfg.filename}: {type(runner.model).__name__} on {backbone}, "
            f"{count / 1e6:.2f}M parameters",
        )

    def _overlap(self) -> Iterator[Finding]:
        """Find images that are both trained on and evaluated."""
        read = [
            (parts, check) for parts, check in self.data if check.dataset is not None
        ]
        train = [check for parts, check in read if "train" in parts]
        found = False
        for parts, check in read:
            if parts == ["train"] or not train:
                continue
            label = "+".join(part for part in parts if part != "train")
            images = self._resolved(check)
            for own in train:
                common = images.keys() & self._resolved(own).keys()
                if not common:
                    equal = set(own.contents.values()) & set(check.contents.values())
                    if equal:
                        found = True
                        names = [p for p, c in check.contents.items() if c in equal]
                        yield Finding(
                            "overlap",
                            "warn",
                            f"{len(names):,} images of {label} have the pixels of "
                            f"images of train, as {names[0]}",
                            f"Remove them from {own.source} or {check.source}",
                        )
                    continue
                found = True
                text = (
                    f"{len(common):,} of {len(images):,} images of {label} are images "
                    f"of train too, as {min(common)}"
                )
                if own.source == check.source:
                    yield Finding(
                        "overlap",
                        "warn",
                        f"{text}: both are {own.source}, and metrics say how well "
                        "it is memorised",
                        "For others, --cfg-options "
                        + check.elsewhere(label.partition("+")[0]),
                    )
                else:
                    yield Finding(
                        "overlap",
                        "warn",
                        text,
                        f"Remove them from {own.source} or {check.source}",
                    )
        if train and len(read) > len(train) and not found:
            compared = "file name and pixels" if self.full else "file name"
            yield Finding(
                "overlap", "pass", f"no image is trained on and evaluated ({compared})"
            )

    def _resolved(self, check: DatasetCheck) -> dict[str, None]:
        """Absolute paths of images; links of files are followed unless it is quick."""
        folders: dict[str, str] = {}
        resolved = {}
        for path in check.paths():
            folder, name = os.path.split(path)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            path = os.path.join(folders[folder], name)
            if not self.quick and os.path.islink(path):
                path = os.path.realpath(path)
            resolved[path] = None
        return resolved

    def _num_classes(self, runner: RehearsalRunner) -> Iterator[Finding]:
        """Check that all heads have as many classes as all datasets."""
        if "language_model" in self.cfg.model:
            return
        sets: dict[tuple, tuple[list[str], DatasetCheck]] = {}
        for parts, check in self.data:
            if check.classes:
                sets.setdefault(tuple(check.classes), (parts, check))
        if not sets:
            return
        (classes, (parts, check)), *others = sets.items()  # training's
        name = "test num_classes" if parts == ["test"] else "num_classes"
        try:
            check_num_classes(runner.model, classes)
            if not others:
                text = f"{len(classes)} in heads and datasets"
                yield Finding("num_classes", "pass", text)
        except UserError as error:
            yield Finding.of_error(name, error)
        for different, (other_parts, other) in others:
            missing = [n for n in classes if n not in different]
            added = [n for n in different if n not in classes]
            how = [f"without {shorten(missing)}"] * bool(missing)
            how += [f"with {shorten(added)} in addition"] * bool(added)
            yield Finding(
                "test num_classes" if other_parts == ["test"] else "num_classes",
                "fail",
                f"{'+'.join(other_parts)} ({other.source}) has other classes than "
                f"{'+'.join(parts)} ({check.source}): "
                f"{', '.join(how) or 'in another order'}",
                "Set the same metainfo=dict(classes=...) in all of them, or for a "
                "classifier give all the same folders",
            )

    def _evaluators(self, runner: RehearsalRunner) -> Iterator[Finding]:
        """Evaluate the ground truth."""
        done: list[tuple] = []
        for part in ("val", "test"):
            loader, evaluator = (
                self.cfg.get(f"{part}_{key}") for key in ("dataloader", "evaluator")
            )
            if not loader or not evaluator or (loader, evaluator) in done:
                continue
            done.append((loader, evaluator))
            if any(c.dataset is None for parts, c in self.data if part in parts):
                continue
            name = f"{part} evaluator"
            try:
                with config_mistakes(self.cfg):
                    if part == "val":
                        runner._val_loop = runner.build_val_loop(runner._val_loop)
                        loop = runner._val_loop
                    else:
                        loop = runner.test_loop
                notes = []
                for metric in loop.evaluator.metrics:
                    if isinstance(metric, CocoMetric):
                        notes += fix_coco_metric(metric)
                found = evaluate_truth(
                    loop.dataloader.dataset,
                    loop.evaluator,
                    notes,
                    self.quick,
                    f"{part}_evaluator",
                )
                yield replace(found, check=name)
            except Exception as error:  # metrics raise what they like
                remedy = f"Correct {part}_evaluator and {part}_dataloader"
                yield _failure(name, error, remedy)

    def _weights(self, runner: RehearsalRunner) -> Iterator[Finding]:
        """Initialise the model, and load what the run starts from."""
        cfg, check = self.cfg, "pretrained weights"
        path = cfg.get("load_from")
        parts = [("model", cfg.model), ("model.backbone", cfg.model.get("backbone"))]
        sources = {
            f"{key}.init_cfg.checkpoint": init["checkpoint"]
            for key, part in parts
            for init in _listed((part or {}).get("init_cfg"))
            if init.get("checkpoint")
        }
        later = [
            source
            for source in (*sources.values(), *filter(None, [path]))
            if self.quick and _is_remote(source) and not _is_cached(source)
        ]
        if later:
            yield Finding(
                check,
                "warn",
                f"{later[0]} is not in the cache and will be downloaded at the start",
                f"python tools/check.py {cfg.filename} downloads it and sees whether "
                "it fits",
            )
            return
        try:
            with config_mistakes(cfg):
                runner._init_model_weights()
            if path:
                runner._load_from = path
                runner.load_or_resume()
        except Exception as error:  # of a download, a file, a hook
            key, source = ("load_from", path) if path else next(iter(sources.items()))
            option = f"--cfg-options {key}=FILE"
            remedy = f"; download it by other means and give its path: {option}"
            start = f", or start without: {option.replace('FILE', 'None')}"
            finding = _failure(check, error)
            own = isinstance(error, UserError)
            yield replace(
                finding,
                text=finding.text
                if own
                else f"{source} cannot be loaded ({finding.text}){remedy}",
                remedy=start.removeprefix(", ").capitalize()
                if own and not sources
                else finding.remedy,
            )
            return
        skipping = [
            key
            for key, part in parts
            for init in _listed((part or {}).get("init_cfg"))
            if type_name(init.get("type")) == "Pretrained"
        ]
        if skipping and not path:
            key = skipping[0]
            yield Finding(
                check,
                "warn",
                f"with {key}.init_cfg.type='Pretrained', MMEngine skips what does not "
                "fit",
                "--cfg-options model.backbone.init_cfg.type=CheckedPretrained"
                if key == "model.backbone"
                else "--cfg-options model.init_cfg=None load_from="
                + sources[f"{key}.init_cfg.checkpoint"],
            )
            return
        used = [path] if path else list(sources.values())
        text = f"{', '.join(used)}: loaded" if used else "none: the network starts anew"
        yield Finding(check, "pass", text)

    def _iterations(self, runner: RehearsalRunner) -> Iterator[Finding]:
        """Take two iterations, a batch of the evaluation, and a checkpoint."""
        hook = RehearsalHook(QUICK if self.quick else None)
        runner.register_hook(hook, priority="LOWEST")
        runner._init_model_weights = lambda: None
        runner._load_from = None
        if self.cfg.get("val_dataloader"):
            found = self._val_step(runner)
            yield found
            if found.status == "fail":
                return
        try:
            with config_mistakes(self.cfg), suppress(RehearsedError):
                runner.train()
        except torch.OutOfMemoryError as error:
            size = self.cfg.train_dataloader.get("batch_size", 1)
            yield Finding(
                "train step",
                "fail",
                str(error).partition(". GPU")[0],
                f"--cfg-options train_dataloader.batch_size={max(1, size // 2)}",
            )
            return
        except Exception as error:  # models and transforms raise what they like
            yield _failure("train step", error)
            return
        finally:
            if hook.begun:
                runner.call_hook("after_train")
        yield from self._losses(runner, hook)
        yield self._checkpoint(runner)
        yield from self._learning_rate(runner)

    def _val_step(self, runner: RehearsalRunner) -> Finding:
        """Predict a batch of the evaluation, before the weights change."""
        try:
            runner.model.eval()
            batch = next(iter(runner.val_loop.dataloader))
            with torch.no_grad():
                predictions = runner.model.val_step(batch)
            runner.val_loop.evaluator.process(predictions, batch)
        except Exception as error:  # models and transforms raise what they like
            return _failure("val step", error)
        size = runner.val_loop.dataloader.batch_size
        return Finding("val step", "pass", f"a batch of {size} images")

    def _losses(self, runner: RehearsalRunner, hook: RehearsalHook) -> Iterator:
        """Report losses, memory, and parameters that do not learn."""
        parameters = dict(runner.model.named_parameters())
        idle = [
            name
            for name, parameter in parameters.items()
            if parameter.requires_grad and name not in hook.learnt
        ]
        if idle and not self.cfg.get("find_unused_parameters"):
            yield Finding(
                "train step",
                "warn",
                f"{len(idle)} of {len(parameters)} parameters get no gradient, as "
                f"{idle[0]}",
                "They are not trained; in several processes, add "
                "find_unused_parameters=True",
            )
        zero = [
            name
            for name in hook.losses[0]
            if "bbox" in name and not any(losses[name] for losses in hook.losses)
        ]
        if zero and any(hook.objects):
            yield Finding(
                "train step",
                "warn",
                f"{zero[0]} is 0 in {ITERATIONS} iterations with {sum(hook.objects)} "
                "objects: the detector matches none of them",
                "Let sizes and strides of anchors or points fit the objects' sizes at "
                "the size to which images are resized",
            )
        losses = ", ".join(f"{sum(_total(x)):.3g}" for x in hook.losses)
        images = getattr(runner.train_dataloader.batch_sampler, "batches", None)
        images = getattr(images, "batch_size", runner.train_dataloader.batch_size)
        text = f"{len(hook.losses)} iterations of {images} images: loss {losses}"
        if torch.cuda.is_available():
            peak, (_, total) = (
                torch.cuda.max_memory_allocated(),
                torch.cuda.mem_get_info(),
            )
            text += f"; at most {_size(peak)} of the GPU's {_size(total)}"
        yield Finding("train step", "pass", text)

    def _checkpoint(self, runner: RehearsalRunner) -> Finding:
        """Write a checkpoint, read it, and see whether the disk can hold them all."""
        hook = next(h for h in runner.hooks if "Checkpoint" in type(h).__name__)
        hook = next((h for h in runner.hooks if hasattr(h, "max_keep_ckpts")), hook)
        path = Path(runner.work_dir, "rehearsal.pth")
        try:
            runner.save_checkpoint(
                runner.work_dir,
                path.name,
                save_optimizer=getattr(hook, "save_optimizer", True),
                by_epoch=False,
            )
            read_checkpoint(str(path))
        except Exception as error:  # of the disk, or hooks
            return _failure("disk", error)
        each = path.stat().st_size
        for written in Path(runner.work_dir).glob("*.pth"):
            written.unlink()
        count = self._checkpoints(runner, hook)
        folder = self.cfg.work_dir
        free = shutil.disk_usage(folder).free
        there = sum(p.stat().st_size for p in Path(folder).glob("*.pth"))
        needed = max(count * each - there, 0)  # by a run that is resumed
        have = f" ({_size(there)} are there)" if there else ""
        text = (
            f"up to {count} checkpoint{'s' * (count != 1)} of {_size(each)}, "
            f"{_size(count * each)} in all{have}; {_size(free)} are free in {folder}"
        )
        if needed <= free:
            return Finding("disk", "pass", text)
        return Finding(
            "disk",
            "fail" if free < each else "warn",
            text,
            "Make room, give another folder with --work-dir, or keep fewer: "
            "--cfg-options default_hooks.checkpoint.max_keep_ckpts=2",
        )

    def _checkpoints(self, runner: RehearsalRunner, hook: Any) -> int:
        """Count the largest number of checkpoints on the disk at once."""
        loop, interval = runner.train_loop, getattr(hook, "interval", -1)
        length = loop._max_iters
        if getattr(hook, "by_epoch", True):
            length = self.cfg.train_cfg.get("max_epochs", 1)
        count = math.ceil(length / interval) if interval > 0 else 1
        keep = getattr(hook, "max_keep_ckpts", -1)
        if 0 < keep < count:
            count = keep + 1  # the old one goes when the new one is there
        return count + len(_listed(getattr(hook, "save_best", None)))

    def _learning_rate(self, runner: RehearsalRunner) -> Iterator[Finding]:
        """Follow the rate through the schedules."""
        batch, check = global_batch(self.cfg), "learning rate"
        rate = (self.cfg.optim_wrapper.get("optimizer") or {}).get("lr")
        if rate is None:
            text = f"not one of the optimiser's; batch {batch.total}"
            yield Finding(check, "pass", text)
            return
        text = batch.describe(rate)
        schedulers = _listed(self.cfg.get("param_scheduler"))
        found = []
        if batch.base is None:
            remedy = "Add auto_scale_lr=dict(base_batch_size=N), the batch it is for"
            found.append(Finding(check, "warn", text, remedy))
        elif batch.factor > _FACTOR:
            remedy = "Set optim_wrapper.optimizer.lr and auto_scale_lr.base_batch_size "
            remedy += "to a rate that is known to train, and its batch"
            found.append(Finding(check, "warn", text, remedy))
        if schedulers:
            rates = [r * batch.factor for r in learning_rates(runner, self.cfg)]
            top = max(range(len(rates)), key=rates.__getitem__)
            text += (
                f"; {rates[0]:g} at iteration 1, {rates[top]:g} at {top + 1:,}, "
                f"{rates[-1]:g} at the end"
            )
            lowest = min(range(top, len(rates)), key=rates.__getitem__)
            found += self._schedules(runner, schedulers)
            if rates[-1] > 1.01 * rates[lowest] and not found:
                remedy = "Let the schedules end with the training"
                for i, scheduler in enumerate(schedulers):
                    if scheduler.get("T_max"):
                        length = self._length(runner, scheduler)
                        fitting = length - scheduler.get("begin", 0)
                        remedy = f"--cfg-options param_scheduler.{i}.T_max={fitting}"
                yield Finding(
                    check,
                    "warn",
                    f"the rate is at its lowest, {rates[lowest]:g}, at iteration "
                    f"{lowest + 1:,} and rises again to {rates[-1]:g}, where training "
                    f"ends at {len(rates):,}",
                    remedy,
                )
                return
        yield from found or [Finding(check, "pass", text)]

    def _length(self, runner: RehearsalRunner, scheduler: dict) -> int:
        """Give the length of the training in what a schedule counts."""
        if scheduler.get("by_epoch", True):
            return self.cfg.train_cfg["max_epochs"]
        return runner.train_loop._max_iters

    def _schedules(
        self, runner: RehearsalRunner, schedulers: list[dict]
    ) -> Iterator[Finding]:
        """Check that schedules count what the loop counts, and end with it."""
        epochs = self.cfg.train_cfg.get("max_epochs")
        several = isinstance(self.cfg.param_scheduler, list)
        for i, scheduler in enumerate(schedulers):
            place = "param_scheduler" + f".{i}" * several
            by_epoch = scheduler.get("by_epoch", True)
            if by_epoch and not epochs:
                yield Finding(
                    "learning rate",
                    "warn",
                    f"{place} counts epochs, and {type_name(self.cfg.train_cfg.type)} "
                    "has none, so that it changes nothing",
                    f"--cfg-options {place}.by_epoch=False, with its numbers in "
                    "iterations",
                )
                continue
            length = self._length(runner, scheduler)
            unit = "epoch" if by_epoch else "iteration"
            for key in ("end", "total_steps", "T_max"):
                if (scheduler.get(key) or 0) > length:
                    yield Finding(
                        "learning rate",
                        "warn",
                        f"{place}.{key} is {unit} {scheduler[key]}, and training ends "
                        f"at {length}, in the middle of the schedule",
                        f"--cfg-options {place}.{key}=NUMBER, so that it fits",
                    )


def check_evaluation(metric: dict, key: str = "val_evaluator") -> None:
    """Check that a metric can be built, with the file that it reads.

    Args:
        metric: Configuration of the metric.
        key: Its place in the config.

    Raises:
        UserError: If it cannot.
    """
    try:
        with redirect_stdout(StringIO()):
            METRICS.build(metric)
    except UserError:
        raise
    except Exception as error:  # metrics raise what they like
        raise UserError(
            f"{key} cannot be built: {first_sentence(error)}; it needs the annotation "
            f"file of the dataset: --cfg-options {key}.ann_file=FILE"
        ) from error


def _failure(check: str, error: Exception, remedy: str = "") -> Finding:
    """Describe an error, and where it was raised if it is not for users."""
    if isinstance(error, UserError):
        return Finding.of_error(check, error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    if "collate" in place.filename:
        remedy = (
            "Let the dataset's pipeline give tensors of one size, with CenterCrop and "
            "PILToTensor of torchvision.transforms.v2 at its end"
        )
    return Finding(
        check,
        "fail",
        f"{type(error).__name__}: {first_sentence(error)} ({place.filename}:"
        f"{place.lineno})",
        remedy or "--no-check of tools/train.py starts the run and shows the traceback",
    )


def _guarded(check: str, step: Iterator[Finding]) -> Iterator[Finding]:
    """Yield a step's findings; an error of the step is one."""
    try:
        yield from step
    except Exception as error:
        yield _failure(check, error)


def _versions() -> Finding:
    modules = (torch, torchvision, mmengine, mmcv, mmdet, np, cv2)
    names = [f"{module.__name__} {module.__version__}" for module in modules]
    python = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "versions",
        "pass",
        ", ".join([f"ghostdet {__version__}", *names, f"Python {python}"]),
    )


def _operators() -> Finding:
    backend = operator_backend()
    whose = "of a compiled MMCV" if backend == "mmcv" else "ghostdet's, on torchvision"
    return Finding("operators", "pass", whose)


def _total(losses: dict[str, float]) -> list[float]:
    return [losses["loss"]] if "loss" in losses else list(losses.values())


def _is_remote(source: str) -> bool:
    return "://" in source or source.startswith(REMOTE)


def _is_cached(source: str) -> bool:
    return source.startswith(REMOTE) and cached(source) is not None


def _listed(value: Any) -> list:
    return [value] if isinstance(value, (str, dict)) else list(value or ())


def _cores() -> int:
    """Count the cores that this process may use, where the system can tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _size(count: float) -> str:
    """Bytes in words, such as ``'1.5 GB'``."""
    unit, units = "bytes", ["TB", "GB", "MB", "kB"]
    while count >= 1000 and units:
        count, unit = count / 1000, units.pop()
    return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
