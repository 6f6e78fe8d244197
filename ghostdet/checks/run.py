"""The check of a run: a rehearsal, with a list of findings."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from io import StringIO
from itertools import product
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from ghostdet.checks.classes import check_num_classes
from ghostdet.checks.datasets import KEPT, DatasetCheck
from ghostdet.checks.findings import Finding
from ghostdet.checks.rehearsal import (
    RehearsalHook,
    RehearsalRunner,
    RehearsedError,
    rehearsal,
)
from ghostdet.checks.truth import evaluate_truth
from ghostdet.config import config_mistakes, evaluator_mistakes, require
from ghostdet.engine.batch_size import GlobalBatch, follow_schedules, global_batch
from ghostdet.engine.hooks.checkpoint import most_checkpoints
from ghostdet.engine.hooks.run_record import versions
from ghostdet.engine.setup import init_weights
from ghostdet.errors import UserError
from ghostdet.ops import operator_backend
from ghostdet.utils.components import iter_datasets
from ghostdet.utils.files import check_writable
from ghostdet.utils.text import megabytes, quiet, shorten
from ghostdet.weights.checkpoint import read_checkpoint

SAMPLE = 200  # images that are read of each dataset
_FACTOR = 10  # scaling the learning rate by more is a warning


def check_run(cfg: Config, full: bool = False, quick: bool = False) -> list[Finding]:
    """Rehearse a training run in its work directory, and leave nothing there.

    Args:
        cfg: A config from :func:`~ghostdet.config.load_config`.
        full: Read all images, not up to :data:`SAMPLE` of each dataset, and find equal
            pixels in training and evaluation.
        quick: Take one iteration in place of two, with the ground truth of at most 200
            images, and load no weights. ``ghostdet train`` does so.

    Returns:
        At least one finding of each check. Without a ``'fail'``, the run can train.

    Example:
        >>> from ghostdet import CONFIGS
        >>> from ghostdet.config import load_config
        >>> cfg = load_config(CONFIGS + '/bccd/retinanet_ghostnet_small_bccd.py',
        ...                   cfg_options={'model.backbone.depth': 50})
        >>> [f.check for f in check_run(cfg, quick=True) if f.status == 'fail'][-1]
        'config'
    """
    used = os.path.isdir(cfg.work_dir)
    gc.freeze()  # MMEngine collects garbage for each dataset, through all imports
    try:
        with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmdet"):
            with quiet(MMLogger.get_current_instance()), redirect_stdout(StringIO()):
                return list(_RunCheck(cfg, full, quick).findings())
    finally:
        gc.unfreeze()
        if not used:
            with suppress(OSError):  # unless something is in it
                os.rmdir(cfg.work_dir)


@dataclass
class _RunCheck:
    """The checks in their order, with the results that later ones need."""

    cfg: Config
    full: bool
    quick: bool
    # Datasets by the parts of the config that have them, such as val and test.
    data: list[tuple[list[str], DatasetCheck]] = field(default_factory=list)
    failed: bool = False
    batch: GlobalBatch | None = None
    weights: dict[str, str] = field(default_factory=dict)  # by their keys

    def findings(self) -> Iterator[Finding]:
        text = ", ".join(f"{name} {version}" for name, version in versions().items())
        text += f", operators of {operator_backend()}"
        yield Finding("versions", "pass", text)
        with ExitStack() as stack:
            for finding in self._steps(stack):
                if finding.check.startswith("test ") and finding.status == "fail":
                    finding = replace(finding, status="warn")  # not needed in training
                self.failed = self.failed or finding.status == "fail"
                yield finding

    def _steps(self, stack: ExitStack) -> Iterator[Finding]:
        cfg, runner, name = self.cfg, None, "work dir"
        yield from self._data()
        if kind := cfg.get("runner_type"):
            yield Finding("config", "warn", f"only data are checked, not {kind}")
            return
        try:
            check_writable(cfg.work_dir)
            name = "config"
            require(cfg, "model", "train_dataloader", "train_cfg", "optim_wrapper")
            self.batch = global_batch(cfg)  # over all ranks; one rehearses
            folder = tempfile.TemporaryDirectory(prefix=".check_", dir=cfg.work_dir)
            with config_mistakes(cfg, reading=True):
                own = init_weights(cfg)
            self.weights = {"load_from": cfg.load_from} if cfg.get("load_from") else own
            with config_mistakes(cfg):
                path = stack.enter_context(folder)
                built = rehearsal(cfg, path, weights=not self.quick)
                runner = stack.enter_context(built)
        except Exception as error:  # constructors raise what they like
            yield Finding.of_error(name, error)
        yield from self._overlap()
        if runner is None:
            return
        runner.checks = [check for _, check in self.data]
        parts = runner.model, getattr(runner.model, "backbone", runner.model)
        names = " on ".join(dict.fromkeys(type(part).__name__ for part in parts))
        count = sum(p.numel() for p in runner.model.parameters()) / 1e6
        text = f"{cfg.filename}: {names}, {count:.2f}M parameters"
        yield Finding("config", "pass", text)
        steps = dict(num_classes=self._num_classes, evaluator=self._evaluators)
        for name, step in {**steps, "train step": self._iterations}.items():
            try:
                yield from step(runner)
            except Exception as error:  # components raise what they like
                yield Finding.of_error(name, error)

    def _data(self) -> Iterator[Finding]:
        """Load each dataset, once, and compare it with its files."""
        for part in ("train", "val", "test"):
            loader = self.cfg.get(f"{part}_dataloader")
            if not (isinstance(loader, dict) and loader.get("dataset")):
                continue
            place = f"{part}_dataloader.dataset"
            for key, cfg in iter_datasets(loader["dataset"], place):
                same = [parts for parts, check in self.data if check.cfg == cfg]
                if not same:
                    self.data.append(([part], DatasetCheck(cfg, key)))
                elif part not in same[0]:
                    same[0].append(part)
        count = 0 if self.quick else None if self.full else SAMPLE
        workers = (os.cpu_count() or 1) if self.full else 1
        for parts, check in self.data:
            name = "+".join(parts)
            try:
                for finding in check.findings(count, workers):
                    yield replace(finding, check=f"{name} {finding.check}")
            except Exception as error:  # annotations hold what they like
                yield Finding.of_error(f"{name} dataset", error)
        objects = [check.objects for parts, check in self.data if "train" in parts]
        if objects and not any(count is None or count for count in objects):
            text = "there is no object to learn from"
            yield Finding("train boxes", "fail", text, KEPT)

    def _overlap(self) -> Iterator[Finding]:
        """Find images that are both trained on and evaluated."""
        loaded = [(parts, c) for parts, c in self.data if c.dataset is not None]
        trained = [check for parts, check in loaded if "train" in parts]
        evaluated = [(parts, c) for parts, c in loaded if parts != ["train"]]
        found = 0
        for (parts, check), own in product(evaluated, trained):
            files, others = own.identities(), check.identities()
            twins = {path: files[key] for key, path in others.items() if key in files}
            found += len(twins)
            if twins:
                name = "+".join(part for part in parts if part != "train")
                text = f"{len(twins):,} of {len(check.paths):,} images of {name} are "
                text += "in the training set too, so the metrics mean little, "
                text += "such as " + " is ".join(dict.fromkeys([*twins.items()][0]))
                remedy = f"Remove them from {own.source} or {check.source}, or "
                yield Finding("overlap", "warn", text, f"{remedy}evaluate other images")
        if trained and evaluated and not found:
            compared = "file name and pixels" if self.full else "file name"
            text = f"no image is trained on and evaluated ({compared})"
            yield Finding("overlap", "pass", text)

    def _num_classes(self, runner: RehearsalRunner) -> Iterator[Finding]:
        """Check that all heads and datasets have the same classes."""
        sets: dict[tuple, tuple[str, DatasetCheck]] = {}
        for parts, check in self.data:
            if check.classes and "language_model" not in self.cfg.model:
                sets.setdefault(tuple(check.classes), ("+".join(parts), check))
        if not sets:
            return
        (classes, (parts, check)), *others = sets.items()  # training's
        for different, (other_parts, other) in others:
            names = sorted({*classes} ^ {*different})
            name = "test num_classes" if other_parts == "test" else "num_classes"
            text = f"{other_parts} ({other.source}) and {parts} ({check.source}) have "
            text += f"different classes: {shorten(names) or 'the order differs'}"
            remedy = "Let all have the same classes in the same order: categories of "
            remedy += "their files and metainfo=dict(classes=...), or folders"
            yield Finding(name, "fail", text, remedy)
        check_num_classes(runner.model, classes)
        if not others:
            text = f"{len(classes)} in heads and datasets"
            yield Finding("num_classes", "pass", text)

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
                with evaluator_mistakes(keys[1]), config_mistakes(self.cfg):
                    loop = getattr(runner, f"{part}_loop")
                    found, metrics = evaluate_truth(loop, self.quick, keys[1])
                runner.metrics = metrics if part == "val" else runner.metrics
            except UserError as error:
                found = Finding.of_error("evaluator", error)
            yield replace(found, check=f"{part} evaluator")

    def _failed(self, runner: RehearsalRunner, error: Exception) -> Finding:
        """Describe an error of a stage of the rehearsal."""
        stage, remedy = runner.stage, ""
        found = Finding.of_error(stage, error)
        if stage == "val metrics":
            remedy = f"The evaluator gives {', '.join(runner.metrics)}"
        elif isinstance(error, torch.OutOfMemoryError):
            remedy = "Lower batch_size of the data loader, or the size of images"
        elif "collate" in found.text:
            remedy = "Let the pipeline end with CenterCrop and PILToTensor of "
            remedy += "torchvision.transforms.v2, for tensors of one size"
        elif stage == "pretrained weights" and "do not fit" not in found.text:
            keys = [f"{key}=None" for key in self.weights]
            remedy = f"Or start without: --cfg-options {' '.join(keys)}" * bool(keys)
        return replace(found, remedy=remedy or found.remedy)

    def _iterations(self, runner: RehearsalRunner) -> Iterator[Finding]:
        """Try a batch of the evaluation, two iterations and a checkpoint."""
        hook = RehearsalHook(1 if self.quick else 2)
        runner.register_hook(hook)
        try:
            if self.failed:
                runner._init_model_weights()
                if runner._load_from:
                    read_checkpoint(runner._load_from)
                return
            with config_mistakes(self.cfg), suppress(RehearsedError):
                runner.train()
        except Exception as error:  # components raise what they like
            yield self._failed(runner, error)
            return
        if not hook.losses:
            text = f"train_cfg={dict(self.cfg.train_cfg)} has no iteration"
            yield Finding(runner.stage, "fail", text, "Set max_iters or max_epochs")
            return
        text = ", ".join(map(str, self.weights.values()))
        text += ": loaded when the run starts" if self.quick else ": loaded"
        yield Finding("pretrained weights", "pass", text if self.weights else "none")
        yield from hook.findings(runner)
        try:
            yield self._checkpoint(runner)
        except (OSError, UserError) as error:
            yield Finding.of_error("disk", error)
        yield from self._learning_rate(runner)

    def _checkpoint(self, runner: RehearsalRunner) -> Finding:
        """Write a checkpoint, read it, and see whether the disk can hold them all."""
        hook = next((h for h in runner.hooks if hasattr(h, "max_keep_ckpts")), None)
        path, folder = Path(runner.work_dir, "rehearsal.pth"), self.cfg.work_dir
        free = shutil.disk_usage(folder).free
        state = dict(save_optimizer=getattr(hook, "save_optimizer", True))
        runner.save_checkpoint(runner.work_dir, path.name, by_epoch=False, **state)
        read_checkpoint(str(path))
        each = path.stat().st_size
        count = most_checkpoints(hook, runner.train_loop)
        there = sum(p.stat().st_size for p in Path(folder).glob("*.pth"))
        text = f"up to {count} checkpoint{'s' * (count != 1)} of {megabytes(each)}"
        text += f" ({megabytes(there)} are there)" * bool(there)
        text += f"; {megabytes(free)} are free in {folder}"
        if count * each - there <= free:  # a run that is resumed has written some
            remedy = "" if count else "Set default_hooks.checkpoint.save_last=True"
            return Finding("disk", "pass" if count else "warn", text, remedy)
        remedy = "Make room, give another folder with --work-dir, or keep fewer: "
        remedy += "--cfg-options default_hooks.checkpoint.max_keep_ckpts=2"
        return Finding("disk", "fail" if free < each else "warn", text, remedy)

    def _learning_rate(self, runner: RehearsalRunner) -> Iterator[Finding]:
        """Follow the rate through the schedules."""
        batch, found = self.batch, []
        rate = (self.cfg.optim_wrapper.get("optimizer") or {}).get("lr")
        if rate is None:
            yield Finding("learning rate", "pass", "not one of the optimiser's")
            return
        text = batch.describe(rate)
        if not batch.base:
            found.append((text, "Add auto_scale_lr=dict(base_batch_size=N), its batch"))
        elif batch.factor > _FACTOR:
            remedy = "Set optim_wrapper.optimizer.lr to a rate that trains, and "
            found.append((text, f"{remedy}auto_scale_lr.base_batch_size to its batch"))
        if self.cfg.get("param_scheduler"):
            course, rate, fits = follow_schedules(runner, batch)
            if not fits:
                remedy = "Let begin, end, T_max and milestones of param_scheduler fit "
                remedy += "train_cfg, or as many steps with by_epoch=False"
                found.append((course, remedy))
            text += f"; {course}"
        if not rate:
            yield Finding("learning rate", "fail", "0, so that nothing learns; set lr")
        for row in found or [(text,)]:
            yield Finding("learning rate", "warn" if found else "pass", *row)
