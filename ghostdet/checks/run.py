"""The check of a run: a list of findings instead of the first error."""

from __future__ import annotations

import copy
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import mmcv
import mmdet
import mmengine
import numpy as np
import torch
import torchvision
from mmdet.registry import (
    EVALUATOR,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
)
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import initialize
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope, Registry
from torch import nn

from ghostdet._version import __version__
from ghostdet.checks.classes import check_num_classes
from ghostdet.checks.datasets import (
    ClassificationCheck,
    DatasetCheck,
    Files,
    check_of,
    evaluation_finding,
)
from ghostdet.checks.findings import Finding
from ghostdet.config import config_mistakes, require
from ghostdet.engine.batch_size import global_batch
from ghostdet.errors import ConfigError, UserError
from ghostdet.evaluation.accuracy import Accuracy
from ghostdet.ops import operator_backend
from ghostdet.utils.components import (
    iter_coco_metrics,
    iter_datasets,
    iter_metrics,
    type_name,
)
from ghostdet.utils.files import check_writable
from ghostdet.utils.text import quiet, shorten
from ghostdet.weights import check_state_dict, get_state_dict
from ghostdet.weights.checkpoint import read_checkpoint
from ghostdet.weights.source import REMOTE, cached

SAMPLE = 200  # images that are read of each dataset
Check = DatasetCheck | ClassificationCheck
_REGISTRIES = {
    "train_cfg": LOOPS,
    "val_cfg": LOOPS,
    "param_scheduler": PARAM_SCHEDULERS,
    "default_hooks": HOOKS,
    "custom_hooks": HOOKS,
}


def check_run(cfg: Config, full: bool = False, quick: bool = False) -> list[Finding]:
    """Check all that a training run needs, without starting it.

    Annotation files are parsed once each. Nothing is trained; the model is built on
    the meta device, or moved there where it can only be built on the CPU. What cannot
    be checked, and what only testing uses, is at most a warning.

    Args:
        cfg: A config from :func:`~ghostdet.config.load_config`.
        full: Read all images, in a process for each core, with a progress bar; by
            default up to :data:`SAMPLE` of each dataset. Images of training and
            evaluation are compared by their pixels as well.
        quick: Read no images but those that are tried in the pipelines, four of each
            dataset of training and two of others, and use no network: as
            ``tools/train.py`` does.

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
        with quiet(MMLogger.get_current_instance()):
            return list(_RunCheck(cfg, full, quick).findings())


@dataclass
class _RunCheck:
    """The checks, in their order, and what later ones need of earlier ones."""

    cfg: Config
    full: bool
    quick: bool
    model: nn.Module | None = None
    files: Files = field(default_factory=dict)
    # Datasets by the parts of the config that have them, such as val and test.
    data: list[tuple[list[str], Check]] = field(default_factory=list)
    shapes: list[tuple[int, int]] = field(default_factory=list)

    def findings(self) -> Iterator[Finding]:
        yield _versions()
        yield _operators()
        try:
            require(self.cfg, "model", "train_dataloader", "train_cfg", "optim_wrapper")
        except UserError as error:
            yield Finding.of_error("config", error)
            return
        for name, step in (
            ("config", self._config()),
            ("datasets", self._data()),
            ("evaluators", self._evaluators()),
            ("overlap", self._overlap()),
            ("num_classes", self._num_classes()),
            ("pipelines", self._pipelines()),
            ("pretrained weights", self._weights()),
            ("work dir", self._disk()),
            ("learning rate", self._learning_rate()),
            ("train images", self._batches()),
        ):
            for finding in _guarded(name, step):
                # Training has no need of what is tested afterwards.
                test_only = finding.check.startswith("test ")
                if test_only and finding.status == "fail":
                    finding = replace(finding, status="warn")
                yield finding

    def _config(self) -> Iterator[Finding]:
        """Check that the model can be built, and that all named components exist."""
        cfg = self.cfg
        try:
            for key, registry, kind in self._named():
                if isinstance(kind, str) and registry.get(kind) is None:
                    raise ConfigError(
                        f"{cfg.filename} cannot be run: {key} has the type "
                        f"{kind!r}, which is not in the registry {registry.name}; "
                        "correct it there or with --cfg-options"
                    )
            with config_mistakes(cfg):
                self.model = _build_on_meta(cfg.model)
        except UserError as error:
            yield Finding.of_error("config", error)
            return
        backbone = type(getattr(self.model, "backbone", self.model)).__name__
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        yield Finding(
            "config",
            "pass",
            f"{cfg.filename}: {type(self.model).__name__} on {backbone}, "
            f"{parameters / 1e6:.2f}M parameters",
        )

    def _named(self) -> Iterator[tuple[str, Registry, str | type]]:
        """Keys, and the types that they name of a registry."""
        for key, registry in _REGISTRIES.items():
            for kind in _types(self.cfg.get(key)):
                yield key, registry, kind
        for kind in _types(self.cfg.optim_wrapper.get("optimizer")):
            yield "optim_wrapper.optimizer", OPTIMIZERS, kind
        evaluator = self.cfg.get("val_evaluator")
        if isinstance(evaluator, dict) and "metrics" in evaluator:
            yield "val_evaluator", EVALUATOR, evaluator.get("type", "Evaluator")
        for key, metric in iter_metrics(evaluator, "val_evaluator"):
            for kind in _types(metric):
                yield key, METRICS, kind

    def _data(self) -> Iterator[Finding]:
        """Check that each dataset is as its configuration says."""
        failed: list[dict] = []
        for part in ("train", "val", "test"):
            loader = self.cfg.get(f"{part}_dataloader")
            if not loader:
                continue
            yield from _workers(f"{part}_dataloader", loader)
            for key, cfg in iter_datasets(loader.dataset, f"{part}_dataloader.dataset"):
                same = [p for p, check in self.data if check.cfg == cfg]
                if same and part not in same[0]:
                    same[0].append(part)
                    continue
                if cfg in failed:
                    continue
                try:
                    self.data.append(([part], check_of(cfg, self.files, key)))
                except UserError as error:
                    failed.append(cfg)
                    yield Finding.of_error(f"{part} dataset", error)
        count = 0 if self.quick else None if self.full else SAMPLE
        workers = _cores() if self.full else 0
        for parts, check in self.data:
            found = check.findings(count, workers, hashed=self.full)
            for finding in _guarded("dataset", found):
                yield replace(finding, check=f"{'+'.join(parts)} {finding.check}")

    def _evaluators(self) -> Iterator[Finding]:
        """Check that the metrics fit the datasets."""
        seen: list[dict] = []
        for part in ("val", "test"):
            evaluator = self.cfg.get(f"{part}_evaluator")
            for _, metric in iter_metrics(evaluator, f"{part}_evaluator"):
                if METRICS.get(metric["type"]) is Accuracy:
                    yield from self._accuracy(part, metric)
            # COCO's has to get the annotations of what is evaluated.
            for key, metric in iter_coco_metrics(evaluator, f"{part}_evaluator"):
                if metric in seen:
                    continue
                seen.append(metric)
                path = metric["ann_file"]
                own = [
                    data.dataset.ann_file
                    for parts, data in self.data
                    if part in parts and data.dataset is not None
                ]
                finding = evaluation_finding(
                    path, self.files, metric.get("backend_args"), key
                )
                same = os.path.realpath(path) in map(os.path.realpath, own)
                if finding.check == "annotations" and same:
                    continue  # it was said of the dataset
                if finding.status == "pass" and own and not same:
                    finding = Finding(
                        "evaluator",
                        "fail" if len(own) == 1 else "warn",  # it may be all in one
                        f"{path} is not the file of the {part} dataset, "
                        f"{', '.join(own)}: detections would be compared with "
                        "objects of other images",
                        f"--cfg-options {key}.ann_file={own[0]}",
                    )
                yield replace(finding, check=f"{part} evaluator")

    def _accuracy(self, part: str, cfg: dict) -> Iterator[Finding]:
        """Check that there are as many classes as accuracy counts."""
        for parts, check in self.data:
            if part not in parts:
                continue
            try:
                with config_mistakes(self.cfg):
                    metric = METRICS.build(cfg)
                metric.dataset_meta = dict(classes=check.classes)
            except UserError as error:
                yield Finding.of_error(f"{part} evaluator", error)
                return
            top = ", ".join(f"top-{k}" for k in metric.topk)
            text = f"{top} of {len(check.classes):,} classes"
            yield Finding(f"{part} evaluator", "pass", text)

    def _overlap(self) -> Iterator[Finding]:
        """Find images that are both trained on and evaluated."""
        read = [(parts, check) for parts, check in self.data if check.known]
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

    def _resolved(self, check: Check) -> dict[str, None]:
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

    def _num_classes(self) -> Iterator[Finding]:
        """Check that all heads have as many classes as all datasets."""
        if self.model is None or "language_model" in self.cfg.model:
            return
        sets: dict[tuple, tuple[list[str], Check]] = {}
        for parts, check in self.data:
            if check.known:
                sets.setdefault(tuple(check.classes), (parts, check))
        if not sets:
            return

        def named(parts: list[str]) -> str:
            return "test num_classes" if parts == ["test"] else "num_classes"

        (classes, (parts, check)), *others = sets.items()  # training's
        try:
            check_num_classes(self.model, classes)
            if not others:
                text = f"{len(classes)} in heads and datasets"
                yield Finding("num_classes", "pass", text)
        except UserError as error:
            yield Finding.of_error(named(parts), error)
        for different, (other_parts, other) in others:
            yield Finding(
                named(other_parts),
                "fail",
                f"{'+'.join(other_parts)} ({other.source}) has other classes than "
                f"{'+'.join(parts)} ({check.source}): "
                + _difference(classes, different),
                other.same_classes,
            )

    def _pipelines(self) -> Iterator[Finding]:
        """Run some images through the transforms, and collect their sizes."""
        for parts, check in self.data:
            name = f"{'+'.join(parts)} pipeline"
            yield from _guarded(name, self._pipeline(name, parts, check))

    def _pipeline(self, name: str, parts: list[str], check: Check) -> Iterator[Finding]:
        pipeline = check.cfg.get("pipeline") or []
        try:
            with config_mistakes(self.cfg):
                run = check.compose(copy.deepcopy(pipeline))
        except UserError as error:
            yield Finding.of_error(name, error)
            return
        samples = check.samples() if check.known else []
        samples = samples[: 2 if parts[0] != "train" else 4 if self.quick else 8]
        results = []
        for sample in samples:
            path = sample["img_path"]
            try:
                results.append(run(sample))
            except UserError as error:
                yield Finding.of_error(name, error)
                return
            except Exception as error:  # transforms raise what they like
                yield Finding(
                    name,
                    "fail",
                    f"{path} does not get through it: {type(error).__name__}: {error}",
                    f"Correct {check.key}.pipeline, or this image and what is said of "
                    "it",
                )
                return
        shapes = list(filter(None, map(_image_shape, results)))
        if "train" in parts:
            self.shapes += shapes
        if results:
            sizes = sorted({f"{w}x{h} px" for h, w in shapes})
            shown = ", ".join(sizes[:3]) + (", ..." if len(sizes) > 3 else "")
            text = f"{len(results)} images tried{': ' * bool(shown)}{shown}"
            yield Finding(name, "pass", text)

    def _weights(self) -> Iterator[Finding]:
        """Check that pretrained weights can be found, and fit."""
        cfg, check = self.cfg, "pretrained weights"
        path = cfg.get("load_from")
        if path:
            sources = [(path, None, "load_from")]
        else:
            sources = [
                (init["checkpoint"], init, key)
                for key, part in _initialised(cfg.model)
                for init in _listed(part.get("init_cfg"))
                if init.get("checkpoint")
            ]
        if not sources:
            yield Finding(check, "pass", "none: the network starts from nothing")
        for source, init, key in sources:
            try:
                yield self._weights_of(check, source, init, key)
            except UserError as error:
                yield Finding.of_error(check, error)

    def _weights_of(
        self, check: str, source: str, init: dict | None, key: str
    ) -> Finding:
        foreign = "://" in source and not source.startswith(REMOTE)
        if foreign and (self.quick or init is None):
            return Finding(check, "pass", f"{source}: left to MMEngine")
        if not foreign and cached(source) is None and self.quick:
            return Finding(
                check,
                "warn",
                f"{source} is not in the cache and will be downloaded at the start",
                f"python tools/check.py {self.cfg.filename} downloads it and sees "
                "whether it fits",
            )
        if self.quick:
            return Finding(check, "pass", f"{source} is at hand")
        if init is None:
            state = get_state_dict(read_checkpoint(source))
            allow = [
                pattern
                for hook in self.cfg.get("custom_hooks") or []
                for pattern in _listed(hook.get("allow"))
            ]
            if self.model is not None:
                check_state_dict(self.model, state, source, allow)
            return Finding(check, "pass", f"{source}: {len(state)} tensors that fit")
        module_cfg = copy.deepcopy(dict(_initialised(self.cfg.model))[key])
        module_cfg.init_cfg = None
        with config_mistakes(self.cfg):
            module = MODELS.build(module_cfg)
        try:
            initialize(module, copy.deepcopy(init))
        except (OSError, RuntimeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{source} cannot be loaded ({str(error)[:200]}); download it by other "
                f"means and give its path: --cfg-options {key}.init_cfg.checkpoint=FILE"
            ) from error
        if type_name(init.get("type")) == "Pretrained":
            return Finding(
                check,
                "warn",
                f"{source} is at hand, and with type='Pretrained' MMEngine skips what "
                "does not fit",
                "--cfg-options model.backbone.init_cfg.type=CheckedPretrained"
                if key == "model.backbone"
                else f"--cfg-options model.init_cfg=None load_from={source}",
            )
        return Finding(check, "pass", f"{source} fills {type(module).__name__}")

    def _disk(self) -> Iterator[Finding]:
        """Check that the disk can hold the checkpoints."""
        cfg = self.cfg
        try:
            check_writable(cfg.work_dir)
        except UserError as error:
            yield Finding.of_error("work dir", error)
            return
        yield Finding("work dir", "pass", f"{cfg.work_dir} can be written")
        if self.model is None:
            return
        hook = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
        count = self._checkpoints(hook)
        with config_mistakes(cfg):
            each = _checkpoint_size(cfg, self.model, hook.get("save_optimizer", True))
        free = shutil.disk_usage(cfg.work_dir).free
        there = sum(p.stat().st_size for p in Path(cfg.work_dir).glob("*.pth"))
        needed = max(count * each - there, 0)  # by a run that is resumed
        have = f" ({_size(there)} are there)" if there else ""
        text = (
            f"up to {count} checkpoint{'s' * (count != 1)} of {_size(each)}, "
            f"{_size(count * each)} in all{have}; {_size(free)} are free in "
            f"{cfg.work_dir}"
        )
        if needed <= free:
            yield Finding("disk", "pass", text)
            return
        yield Finding(
            "disk",
            "fail" if free < each else "warn",
            text,
            "Make room, give another folder with --work-dir, or keep fewer: "
            "--cfg-options default_hooks.checkpoint.max_keep_ckpts=2",
        )

    def _checkpoints(self, hook: dict) -> int:
        """Largest number of checkpoints on the disk at once."""
        loop, batch = self.cfg.train_cfg, global_batch(self.cfg)
        length = loop.get("max_epochs") or loop.get("max_iters") or 1
        if "max_epochs" in loop and not hook.get("by_epoch", True):
            used = sum(len(c) for p, c in self.data if "train" in p and c.known)
            length *= math.ceil(used / (batch.ranks * batch.images)) or 1
        interval = hook.get("interval", -1)
        count = math.ceil(length / interval) if interval > 0 else 1
        keep = hook.get("max_keep_ckpts", -1)
        if 0 < keep < count:
            count = keep + 1  # the old one goes when the new one is there
        return count + len(_listed(hook.get("save_best")))

    def _learning_rate(self) -> Iterator[Finding]:
        batch = global_batch(self.cfg)
        rate = (self.cfg.optim_wrapper.get("optimizer") or {}).get("lr")
        if rate is None:
            text = f"not one of the optimiser's; batch {batch.total}"
            yield Finding("learning rate", "pass", text)
        elif batch.base is None:
            yield Finding(
                "learning rate",
                "warn",
                batch.describe(rate),
                "Add auto_scale_lr=dict(base_batch_size=N), the batch that it is for",
            )
        else:
            yield Finding("learning rate", "pass", batch.describe(rate))
        yield from self._schedule()

    def _schedule(self) -> Iterator[Finding]:
        """Check that no schedule outlasts the training, and no cosine rises again."""
        epochs = "max_epochs" in self.cfg.train_cfg
        length = self.cfg.train_cfg["max_epochs" if epochs else "max_iters"]
        schedulers = self.cfg.get("param_scheduler") or []
        for i, scheduler in enumerate(_listed(schedulers)):
            if scheduler.get("by_epoch", True) != epochs:
                continue
            unit = "epoch" if epochs else "iteration"
            place = "param_scheduler" + f".{i}" * isinstance(schedulers, list)
            bottom = scheduler.get("begin", 0) + (scheduler.get("T_max") or math.inf)
            if bottom < min(length, scheduler.get("end", math.inf)):
                yield Finding(
                    "learning rate",
                    "warn",
                    f"{place} is at its lowest at {unit} {bottom} and rises again, "
                    f"and training ends at {length}",
                    f"--cfg-options {place}.T_max={length - scheduler.get('begin', 0)}",
                )
            for key in ("end", "total_steps", "T_max"):
                if scheduler.get(key, 0) > length:
                    yield Finding(
                        "learning rate",
                        "warn",
                        f"{place}.{key} is {unit} {scheduler[key]}, and training ends "
                        f"at {length}, in the middle of the schedule",
                        f"--cfg-options {place}.{key}=NUMBER, so that it fits",
                    )

    def _batches(self) -> Iterator[Finding]:
        """Check that the training images make a batch on each rank."""
        loader, batch = self.cfg.train_dataloader, global_batch(self.cfg)
        if not loader.get("drop_last") or "max_epochs" not in self.cfg.train_cfg:
            return
        for _, check in self.data:
            whole = check.key == "train_dataloader.dataset" and check.known
            if whole and len(check) < batch.ranks * batch.images:
                yield Finding(
                    "train images",
                    "fail",
                    f"{len(check):,} images make no batch of {batch.images} on "
                    f"{batch.ranks} rank{'s' * (batch.ranks > 1)}, and drop_last=True "
                    "leaves them out",
                    "--cfg-options train_dataloader.batch_size="
                    f"{max(1, len(check) // batch.ranks)}",
                )


def _guarded(check: str, step: Iterator[Finding]) -> Iterator[Finding]:
    """Yield a step's findings; a step that fails is a warning and stops no run."""
    try:
        yield from step
    except Exception as error:  # of foreign components, or a fault of the check
        text = f"could not be checked: {type(error).__name__}: {str(error)[:200]}"
        yield Finding(check, "warn", text)


def _workers(key: str, loader: dict) -> Iterator[Finding]:
    """Check that a data loader has the processes that its options are for."""
    for option, off in (("persistent_workers", False), ("prefetch_factor", None)):
        if loader.get(option) and not loader.get("num_workers"):
            yield Finding(
                key.replace("_dataloader", " data loader"),
                "fail",
                f"{key}.{option} is {loader[option]} with num_workers=0, and is of "
                "use to processes alone",
                f"--cfg-options {key}.{option}={off}",
            )


def _difference(classes: Sequence[str], others: Sequence[str]) -> str:
    """Describe how others differ from classes."""
    missing = [name for name in classes if name not in others]
    unexpected = [name for name in others if name not in classes]
    differences = [f"without {shorten(missing)}"] if missing else []
    differences += [f"with {shorten(unexpected)} in addition"] if unexpected else []
    return ", ".join(differences) or "in another order"


def _build_on_meta(cfg: dict) -> nn.Module:
    """Build a model on the meta device."""
    try:
        with torch.device("meta"):
            return MODELS.build(copy.deepcopy(cfg))
    except (RuntimeError, TypeError):  # it needs values: drop path of a transformer
        return MODELS.build(copy.deepcopy(cfg)).to("meta")


def _image_shape(result: object) -> tuple[int, int] | None:
    """Height and width of what a pipeline gave, if that is one image."""
    if not isinstance(result, dict):
        return None
    image = result.get("inputs", result.get("img"))
    if isinstance(image, torch.Tensor):
        return tuple(image.shape[-2:])
    return image.shape[:2] if isinstance(image, np.ndarray) else None


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


def _types(node: object) -> list:
    """The types in a part of a config: its own, or its entries'."""
    if isinstance(node, dict) and "type" in node:
        return [node["type"]]
    entries = node.values() if isinstance(node, dict) else node or ()
    return [e["type"] for e in entries if isinstance(e, dict) and "type" in e]


def _initialised(model: dict) -> list[tuple[str, dict]]:
    """The parts of a model that load weights, and their places in the config."""
    return [("model", model), ("model.backbone", model.get("backbone") or {})]


def _listed(value: Any) -> list:
    return [value] if isinstance(value, (str, dict)) else list(value or ())


def _cores() -> int:
    """Cores that this process may use, where the system can tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _checkpoint_size(cfg: Config, model: nn.Module, save_optimizer: bool) -> int:
    """Bytes of a checkpoint of a model on the meta device."""
    weights = sum(x.nbytes for x in (*model.parameters(), *model.buffers()))
    kinds = [type_name(hook.get("type")) for hook in cfg.get("custom_hooks") or []]
    size = weights * (1 + any(kind.endswith("EMAHook") for kind in kinds))
    if save_optimizer:  # after a step, which computes nothing there
        optimizer = copy.deepcopy(cfg.optim_wrapper.optimizer)
        wrapper = dict(type="OptimWrapper", optimizer=optimizer)
        optimizer = build_optim_wrapper(model, wrapper).optimizer
        for parameter in filter(lambda p: p.requires_grad, model.parameters()):
            parameter.grad = torch.empty_like(parameter)
        optimizer.step()
        size += sum(
            value.nbytes
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        )
    return size


def _size(count: float) -> str:
    """Bytes in words, such as ``'1.5 GB'``."""
    unit, units = "bytes", ["TB", "GB", "MB", "kB"]
    while count >= 1000 and units:
        count, unit = count / 1000, units.pop()
    return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
