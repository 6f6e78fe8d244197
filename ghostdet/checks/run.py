"""The check of a run: a rehearsal, with a list of findings."""

from __future__ import annotations

import gc
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
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import mmcv
import mmdet
import mmengine
import numpy as np
import torch
import torchvision
from mmdet.registry import METRICS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from ghostdet._version import __version__
from ghostdet.checks.classes import check_num_classes
from ghostdet.checks.datasets import DatasetCheck, first_sentence
from ghostdet.checks.findings import Finding
from ghostdet.checks.rehearsal import (
    QUICK,
    RehearsalHook,
    RehearsalRunner,
    RehearsedError,
    learning_rates,
    rehearsal,
    size_text,
)
from ghostdet.checks.truth import evaluate_truth
from ghostdet.config import config_mistakes, require
from ghostdet.engine.batch_size import GlobalBatch, global_batch
from ghostdet.errors import UserError
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
        quick: Take one iteration of two images and evaluate the ground truth of at most
            200; read no other images and use no network. ``tools/train.py`` does so.

    Returns:
        What was found, of each check at least one finding. A run is of use if none has
        the status ``'fail'``.

    Example:
        >>> from ghostdet import CONFIGS
        >>> from ghostdet.config import load_config
        >>> cfg = load_config(CONFIGS + '/bccd/retinanet_ghostnet_small_bccd.py',
        ...                   cfg_options={'model.backbone.depth': 50})
        >>> [f.check for f in check_run(cfg, quick=True) if f.status == 'fail'][-1]
        'config'
    """
    gc.freeze()  # MMEngine collects garbage for each dataset, through all imports
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmdet"):
        with quiet(MMLogger.get_current_instance()), redirect_stdout(StringIO()):
            findings = list(_RunCheck(cfg, full, quick).findings())
    gc.unfreeze()
    return findings


@dataclass
class _RunCheck:
    """The checks, in their order, and what later ones need of earlier ones."""

    cfg: Config
    full: bool
    quick: bool
    # Datasets by the parts of the config that have them, such as val and test.
    data: list[tuple[list[str], DatasetCheck]] = field(default_factory=list)
    failed: bool = False
    batch: GlobalBatch | None = None
    offline: list[str] = field(default_factory=list)

    def findings(self) -> Iterator[Finding]:
        yield _versions()
        whose = "of a compiled MMCV" if operator_backend() == "mmcv" else "ghostdet's"
        yield Finding("operators", "pass", f"{whose}, for NMS, RoIAlign and others")
        with ExitStack() as stack:
            for finding in self._steps(stack):
                if finding.check.startswith("test ") and finding.status == "fail":
                    finding = replace(finding, status="warn")  # not needed in training
                self.failed = self.failed or finding.status == "fail"
                yield finding

    def _steps(self, stack: ExitStack) -> Iterator[Finding]:
        cfg, runner = self.cfg, None
        yield from self._data()
        if cfg.get("runner_type"):
            text = f"runner_type={cfg.runner_type}: only the data are checked"
            yield Finding("config", "warn", text)
            return
        try:
            check_writable(cfg.work_dir)
        except UserError as error:
            yield Finding.of_error("work dir", error)
            return
        try:
            require(cfg, "model", "train_dataloader", "train_cfg", "optim_wrapper")
            self.batch = global_batch(cfg)  # over all ranks, of which one rehearses
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=".check_", dir=cfg.work_dir)
            )
            with config_mistakes(cfg):
                self.offline = self._not_cached() if self.quick else []
                runner = stack.enter_context(rehearsal(cfg, folder, self.offline))
        except Exception as error:  # constructors raise what they like
            yield _failure("config", error)
        yield from self._overlap()
        if runner is None:
            return
        runner.checks = [check for _, check in self.data]
        model = runner.model
        count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        names = " on ".join(
            type(part).__name__
            for part in {model: 0, getattr(model, "backbone", model): 0}
        )
        text = f"{cfg.filename}: {names}, {count:.2f}M parameters"
        yield Finding("config", "pass", text)
        for name, step in (
            ("num_classes", self._num_classes),
            ("evaluator", self._evaluators),
            ("pretrained weights", self._weights),
            ("train step", self._iterations),
        ):
            if name == "train step" and self.failed:
                return
            try:
                yield from step(runner)
            except Exception as error:  # components raise what they like
                yield _failure(name, error)

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
        workers = (os.cpu_count() or 1) if self.full else 0
        for parts, check in self.data:
            name = "+".join(parts)
            try:
                for finding in check.findings(count, workers, hashed=self.full):
                    yield replace(finding, check=f"{name} {finding.check}")
            except Exception as error:  # annotations hold what they like
                yield _failure(f"{name} dataset", error)
        objects = [check.objects for parts, check in self.data if "train" in parts]
        if objects and not any(count is None or count for count in objects):
            yield Finding(
                "train boxes",
                "fail",
                "there is no object to learn from",
                "Give annotations with objects, as numbers of px",
            )

    def _overlap(self) -> Iterator[Finding]:
        """Find images that are both trained on and evaluated."""
        loaded = [(parts, c) for parts, c in self.data if c.dataset is not None]
        trained = [check for parts, check in loaded if "train" in parts]
        evaluated = [(p, c) for p, c in loaded if p != ["train"]]
        found = False
        for (parts, check), own in product(evaluated, trained):
            files, others = (_resolved(c, self.quick) for c in (own, check))
            pixels = {content: path for path, content in own.contents.items()}
            twins = [(others[real], files[real]) for real in others if real in files]
            twins = twins or [
                (path, pixels[content])
                for path, content in check.contents.items()
                if content in pixels
            ]
            if twins:
                found = True
                label = "+".join(part for part in parts if part != "train")
                remedy = f"Remove them from {own.source} or {check.source}"
                if own.source == check.source:
                    part = label.partition("+")[0]
                    remedy = f"For others, --cfg-options {check.elsewhere(part)}"
                yield Finding(
                    "overlap",
                    "warn",
                    f"{len(twins):,} of {len(check):,} images of {label} are trained "
                    f"on, so that metrics say how well they are memorised: "
                    f"{twins[0][0]} is {twins[0][1]}",
                    remedy,
                )
        if trained and evaluated and not found:
            compared = "file name and pixels" if self.full else "file name"
            text = f"no image is trained on and evaluated ({compared})"
            yield Finding("overlap", "pass", text)

    def _num_classes(self, runner: RehearsalRunner) -> Iterator[Finding]:
        """Check that all heads have as many classes as all datasets."""
        sets: dict[tuple, tuple[str, DatasetCheck]] = {}
        for parts, check in self.data:
            if check.classes and "language_model" not in self.cfg.model:
                sets.setdefault(tuple(check.classes), ("+".join(parts), check))
        if not sets:
            return
        (classes, (parts, check)), *others = sets.items()  # training's
        try:
            check_num_classes(runner.model, classes)
            if not others:
                text = f"{len(classes)} in heads and datasets"
                yield Finding("num_classes", "pass", text)
        except UserError as error:
            yield Finding.of_error("num_classes", error)
        for different, (other_parts, other) in others:
            missing = [name for name in classes if name not in different]
            added = [name for name in different if name not in classes]
            how = [f"without {shorten(missing)}"] * bool(missing)
            how += [f"with {shorten(added)} in addition"] * bool(added)
            yield Finding(
                "test num_classes" if other_parts == "test" else "num_classes",
                "fail",
                f"{other_parts} ({other.source}) has other classes than {parts} "
                f"({check.source}): {', '.join(how) or 'in another order'}",
                "Let all have the same classes in the same order: categories of their "
                "files and metainfo=dict(classes=...), or folders",
            )

    def _evaluators(self, runner: RehearsalRunner) -> Iterator[Finding]:
        """Evaluate the ground truth."""
        done: list[tuple] = []
        for part in ("val", "test"):
            keys = f"{part}_dataloader", f"{part}_evaluator"
            pair = tuple(map(self.cfg.get, keys))
            lacking = any(c.dataset is None for parts, c in self.data if part in parts)
            if not all(pair) or pair in done or lacking:
                continue
            done.append(pair)
            try:
                with config_mistakes(self.cfg):
                    loop = runner.val_loop if part == "val" else runner.test_loop
                found = evaluate_truth(
                    loop.dataloader.dataset, loop.evaluator, self.quick, keys[1]
                )
            except FileNotFoundError as error:
                text = f"no file {error.filename}"
                remedy = f"--cfg-options {keys[1]}.ann_file=FILE"
                found = Finding("evaluator", "fail", text, remedy)
            except Exception as error:  # metrics raise what they like
                found = _failure("evaluator", error, f"Correct {' or '.join(keys)}")
            yield replace(found, check=f"{part} evaluator")

    def _sources(self) -> dict[str, str]:
        """Map keys of the config to the weights that they name."""
        cfg, path = self.cfg, self.cfg.get("load_from")
        if path:
            return {"load_from": path}
        parts = {"model": cfg.model, "model.backbone": cfg.model.get("backbone") or {}}
        return {
            f"{key}.init_cfg.checkpoint": init["checkpoint"]
            for key, part in parts.items()
            for init in _listed(part.get("init_cfg"))
            if init.get("checkpoint")
        }

    def _not_cached(self) -> list[str]:
        """List weights that may have to be downloaded."""
        return [
            source
            for source in self._sources().values()
            if "://" in source or source.startswith(REMOTE)
            if not (source.startswith(REMOTE) and cached(source))
        ]

    def _weights(self, runner: RehearsalRunner) -> Iterator[Finding]:
        """Report weights that are not there yet, or that no iteration will load."""
        for source in self.offline:
            yield Finding(
                "pretrained weights",
                "warn",
                f"{source} is not in the cache, and the run will download it",
                f"ghostdet check {self.cfg.filename} downloads it and sees whether it "
                "fits",
            )
        if self.failed:  # no iteration will load them
            try:
                runner._init_model_weights()
                if runner._load_from:
                    read_checkpoint(runner._load_from)
            except Exception as error:  # of a download, a file
                yield self._failed("pretrained weights", error)

    def _failed(self, stage: str, error: Exception) -> Finding:
        """Describe an error of a stage; of weights, with how to start without them."""
        found, sources = _failure(stage, error), self._sources()
        if stage != "pretrained weights" or not sources or "do not fit" in found.text:
            return found
        key, source = next(iter(sources.items()))
        return replace(
            found,
            text=found.text if source in found.text else f"{source}: {found.text}",
            remedy=f"Give a file, --cfg-options {key}=FILE, or start without: "
            f"--cfg-options {key.removesuffix('.checkpoint')}=None",
        )

    def _loaded(self) -> Finding:
        """Report weights that were loaded."""
        sources, check = self._sources(), "pretrained weights"
        for key, source in sources.items():
            place = key.removesuffix(".init_cfg.checkpoint")
            model = self.cfg.model
            part = model if place == "model" else model.get("backbone") or {}
            kinds = [type_name(i.get("type")) for i in _listed(part.get("init_cfg"))]
            if "Pretrained" in kinds and place != "load_from":
                return Finding(
                    check,
                    "warn",
                    f"{source}: with {place}.init_cfg.type='Pretrained', MMEngine "
                    "skips what does not fit",
                    f"--cfg-options {place}.init_cfg.type=CheckedPretrained"
                    if place == "model.backbone"
                    else f"--cfg-options {place}.init_cfg=None load_from={source}",
                )
        text = ", ".join(sources.values())
        text = f"{text}: loaded" if text else "none: the network starts from nothing"
        return Finding(check, "pass", text)

    def _iterations(self, runner: RehearsalRunner) -> Iterator[Finding]:
        """Try a batch of the evaluation, two iterations and a checkpoint."""
        hook = RehearsalHook(QUICK, 1) if self.quick else RehearsalHook()
        runner.register_hook(hook, priority="LOWEST")
        try:
            with config_mistakes(self.cfg), suppress(RehearsedError):
                runner.train()
        except torch.OutOfMemoryError as error:
            part = runner.stage.partition(" ")[0]
            remedy = f"Lower {part}_dataloader.batch_size, or the size of images"
            text = str(error).partition(". GPU")[0]
            yield Finding(runner.stage, "fail", text, remedy)
            return
        except Exception as error:  # components raise what they like
            yield self._failed(runner.stage, error)
            return
        if not self.offline:
            yield self._loaded()
        yield from hook.findings(runner, self.cfg, self.batch.ranks)
        hook.restore()
        try:
            yield self._checkpoint(runner)
        except (OSError, UserError) as error:
            yield _failure("disk", error)
        yield from self._learning_rate(runner)

    def _checkpoint(self, runner: RehearsalRunner) -> Finding:
        """Write a checkpoint, read it, and see whether the disk can hold them all."""
        hook = next((h for h in runner.hooks if hasattr(h, "max_keep_ckpts")), None)
        path, folder = Path(runner.work_dir, "rehearsal.pth"), self.cfg.work_dir
        runner.save_checkpoint(
            runner.work_dir,
            path.name,
            save_optimizer=getattr(hook, "save_optimizer", True),
            by_epoch=False,
        )
        read_checkpoint(str(path))
        each = path.stat().st_size
        for written in Path(runner.work_dir).glob("*.pth"):
            written.unlink()
        # At most, at one time: an old one goes when the new one is there.
        length, interval = runner.train_loop._max_iters, getattr(hook, "interval", 0)
        if getattr(hook, "by_epoch", True):
            length = self.cfg.train_cfg.get("max_epochs", 1)
        count = math.ceil(length / interval) if interval > 0 else 1
        keep = getattr(hook, "max_keep_ckpts", -1)
        count = keep + 1 if 0 < keep < count else count
        count += len(_listed(getattr(hook, "save_best", None)))
        free = shutil.disk_usage(folder).free
        there = sum(p.stat().st_size for p in Path(folder).glob("*.pth"))
        have = f" ({size_text(there)} are there)" if there else ""
        text = (
            f"up to {count} checkpoint{'s' * (count != 1)} of {size_text(each)}, "
            f"{size_text(count * each)} in all{have}; "
            f"{size_text(free)} are free in {folder}"
        )
        if count * each - there <= free:  # a run that is resumed has written some
            return Finding("disk", "pass", text)
        return Finding(
            "disk",
            "fail" if free < each else "warn",
            text,
            "Make room, give another folder with --work-dir, or keep fewer: "
            "--cfg-options default_hooks.checkpoint.max_keep_ckpts=2",
        )

    def _learning_rate(self, runner: RehearsalRunner) -> Iterator[Finding]:
        """Follow the rate through the schedules."""
        batch, found = self.batch, []

        def warn(text: str, remedy: str) -> None:
            found.append(Finding("learning rate", "warn", text, remedy))

        rate = (self.cfg.optim_wrapper.get("optimizer") or {}).get("lr")
        if rate is None:
            text = f"not one of the optimiser's; batch {batch.total}"
            yield Finding("learning rate", "pass", text)
            return
        text = batch.describe(rate)
        if batch.base is None:
            remedy = "Add auto_scale_lr=dict(base_batch_size=N), the batch it is for"
            warn(text, remedy)
        elif batch.factor > _FACTOR:
            remedy = "Set optim_wrapper.optimizer.lr and auto_scale_lr.base_batch_size "
            warn(text, remedy + "to a rate that is known to train, and its batch")
        if self.cfg.get("param_scheduler"):
            rates, counted = learning_rates(runner, self.cfg, batch.ranks)
            rates = {i: value * batch.factor for i, value in rates.items()}
            for number, (last, steps) in enumerate(counted):
                if last > steps:
                    warn(
                        f"param_scheduler.{number} counts to {last:,}, and the "
                        f"training ends at {steps:,} of these, so that the rate ends "
                        f"at {rates[max(rates)]:g}",
                        f"Let end, T_max or milestones of param_scheduler.{number} "
                        "fit, or count iterations with by_epoch=False",
                    )
            top = max(rates, key=rates.get)
            last = max(rates)
            lowest = min((i for i in rates if i >= top), key=rates.get)
            text += (
                f"; {rates[1]:g} at iteration 1, {rates[top]:g} at {top:,}, "
                f"{rates[last]:g} from {last:,} on"
            )
            if rates[last] > 1.01 * rates[lowest]:
                warn(
                    f"the rate is at its lowest, {rates[lowest]:g}, at iteration "
                    f"{lowest:,} and rises again to {rates[last]:g}",
                    "Let T_max of the schedule be the length of the training",
                )
        yield from found or [Finding("learning rate", "pass", text)]


def _resolved(check: DatasetCheck, quick: bool) -> dict[str, str]:
    """Map real paths of images to those in messages; links count unless quick."""
    folders: dict[str, str] = {}
    resolved = {}
    for path in check.paths():
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        real = os.path.join(folders[folder], name)
        resolved[real if quick else os.path.realpath(real)] = path
    return resolved


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


def _versions() -> Finding:
    modules = (torch, torchvision, mmengine, mmcv, mmdet, np, cv2)
    names = [f"{module.__name__} {module.__version__}" for module in modules]
    python = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "versions",
        "pass",
        ", ".join([f"ghostdet {__version__}", *names, f"Python {python}"]),
    )


def _listed(value: Any) -> list:
    return [value] if isinstance(value, (str, dict)) else list(value or ())
