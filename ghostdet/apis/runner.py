"""MMEngine's Runner, built from a config and checked."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ghostdet.checks import check_dataset, check_evaluation
from ghostdet.config import (
    check_num_classes,
)
from ghostdet.engine.hooks.checkpoint_guard import CheckpointGuardHook
from ghostdet.errors import UserError
from ghostdet.models.exported_detector import ExportedDetector
from ghostdet.utils.components import is_classifier, iter_coco_metrics
from ghostdet.utils.text import shorten


def check_data(cfg: Config, part: str) -> None:
    """Check data set and evaluator's file of ``train``, ``val`` or ``test``."""
    if cfg.get(f"{part}_dataloader"):
        check_dataset(cfg[f"{part}_dataloader"].dataset)
    evaluator = f"{part}_evaluator"
    for key, metric in iter_coco_metrics(cfg.get(evaluator), evaluator):
        check_evaluation(metric["ann_file"], metric.get("backend_args"), key)


def _check_names(
    runner: Runner, loop: str, trained: dict[str, Any], checkpoint: str | Path | None
) -> None:
    """Check that folders are of the classes that a classifier knows.

    Of others, as many, the labels would be numbers of other classes.
    """
    if not isinstance(runner, Runner) or not is_classifier(runner.cfg):
        return
    dataset = getattr(runner, loop).dataloader.dataset  # or a wrapper's, of one kind
    classes = getattr(dataset, "metainfo", {}).get("classes")
    known = trained.get("classes")
    if known is not None and classes is not None and tuple(classes) != tuple(known):
        raise UserError(
            f"{getattr(dataset, 'source', 'the data set')} has the classes "
            f"{shorten(classes)}, and {checkpoint} was trained on {shorten(known)}; "
            "give the data of these with --data-root"
        )


def _is_coco(metric: BaseMetric) -> bool:
    """Whether it is COCO's, and computed."""
    return isinstance(metric, CocoMetric) and not metric.format_only


def _build_runner(cfg: Config) -> Runner:
    """Build the Runner, with a guard: by itself it loads what fits and goes on."""
    # MMEngine collects garbage for each data set, through all that was imported until
    # now; and workers that fork share memory that the collector does not touch.
    gc.freeze()
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    if not any(isinstance(hook, CheckpointGuardHook) for hook in runner.hooks):
        runner.register_hook(CheckpointGuardHook())
    return runner


def _check_classes(runner: Runner, *loops: str) -> None:
    """Check that heads have as many classes as the data sets of these loops.

    With fewer, MMDetection trains the surplus objects as background; with more, an
    evaluation ends in an IndexError.
    """
    # Elsewhere the model is built later, or its classes are words.
    if not isinstance(runner, Runner) or "language_model" in runner.cfg.model:
        return
    for loop in filter(None, (getattr(runner, name) for name in loops)):
        classes = getattr(loop.dataloader.dataset, "metainfo", {}).get("classes")
        if isinstance(runner.model, ExportedDetector):
            runner.model.check(runner.cfg, classes)
        check_num_classes(runner.model, classes)
