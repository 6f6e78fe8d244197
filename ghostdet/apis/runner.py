"""MMEngine's Runner, built from a config and checked."""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ghostdet.checks.classes import check_num_classes
from ghostdet.config import config_mistakes, evaluator_mistakes
from ghostdet.engine.setup import add_hook
from ghostdet.errors import UserError
from ghostdet.evaluation.coco_metric import fix_coco_metric
from ghostdet.models.exported_detector import ExportedDetector
from ghostdet.utils.components import first_metainfo, is_classifier
from ghostdet.utils.text import shorten


class _QuietStart(Runner):
    """Runner that writes machine, config and hooks into its log file alone."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger, whose first handler is the terminal."""
        logger = super().build_logger(*args, **kwargs)
        # MMEngine keeps the logger, which must not keep the Runner.
        self._shown = shown = SimpleNamespace(least=logging.WARNING)
        logger.handlers[0].addFilter(lambda record: record.levelno >= shown.least)
        return logger

    @classmethod
    def from_cfg(cls, cfg: Config) -> Runner:
        """Build a Runner, and name its log."""
        runner = super().from_cfg(cfg)
        runner._shown.least = logging.NOTSET
        runner.logger.info(f"Machine, config and hooks are in {runner._log_dir}")
        return runner

    def build_optim_wrapper(self, *args: Any, **kwargs: Any) -> Any:
        """Build the optimiser, and list the rates of parameters in the log file."""
        self._shown.least = logging.WARNING
        try:
            return super().build_optim_wrapper(*args, **kwargs)
        finally:
            self._shown.least = logging.NOTSET


class _Evaluation(_QuietStart):
    """Runner that leaves the config of the training in the work directory as it is."""

    def dump_config(self) -> None:
        """Dump none; ``vis_data/`` of the evaluation has it."""


def build_runner(
    cfg: Config, loops: Sequence[str], dataset_meta: dict[str, Any]
) -> Runner:
    """Build a Runner and check that its model and datasets have the same classes.

    Args:
        cfg: The config. A ``CheckpointGuardHook`` is added if it has none.
        loops: The loops to be run, such as ``('train_loop', 'val_loop')``.
        dataset_meta: What the checkpoint to be loaded was trained on, with ``classes``
            if known.

    Raises:
        UserError: If the classes differ.
    """
    add_hook(cfg, "CheckpointGuardHook")
    # MMEngine collects garbage for each dataset, through all that was imported. Forked
    # workers share memory that the collector does not touch.
    gc.freeze()
    kind = _QuietStart if "train_loop" in loops else _Evaluation
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else kind.from_cfg(cfg)
    for part in ("val", "test"):
        evaluator = None
        if f"{part}_loop" in loops:
            with evaluator_mistakes(f"{part}_evaluator"), config_mistakes(cfg):
                loop = getattr(runner, f"{part}_loop", None)
                evaluator = getattr(loop, "evaluator", None)
        for metric in getattr(evaluator, "metrics", []):
            if isinstance(metric, CocoMetric):
                fix_coco_metric(metric)
    # Another Runner builds its model later. Text prompts take the place of classes
    # with a language model.
    if not isinstance(runner, Runner) or "language_model" in cfg.model:
        return runner
    known = dataset_meta.get("classes") or ()
    for name in loops:
        if (loop := getattr(runner, name)) is None:
            continue
        # A project's own loop may have none.
        dataset = getattr(getattr(loop, "dataloader", None), "dataset", None)
        metainfo = first_metainfo(getattr(dataset, "metainfo", None))
        classes = metainfo.get("classes") or ()
        # A head with as many other classes would give wrong names to its labels.
        moved = len(known) == len(classes) and any(
            name in known and name != trained for name, trained in zip(classes, known)
        )
        exact = is_classifier(cfg) and (cfg.get("resume") or name == "test_loop")
        if classes and known and (moved or (exact and list(classes) != list(known))):
            source = getattr(dataset, "ann_file", "the dataset")
            raise UserError(
                f"{getattr(dataset, 'source', source)} has the classes "
                f"{shorten(classes)}, and {cfg.load_from} was trained on "
                f"{shorten(known)}; give a dataset of these, in this order, with "
                "--data-root, or reorder the categories of its file and "
                "metainfo=dict(classes=...)"
            )
        if isinstance(runner.model, ExportedDetector):
            runner.model.check(cfg, classes)
        # With fewer classes, MMDetection trains the objects of others as background;
        # with more, an evaluation ends in an IndexError.
        check_num_classes(runner.model, classes)
    return runner
