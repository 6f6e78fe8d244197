"""Training and testing on MMEngine's Runner."""

from __future__ import annotations

import gc
import os
import re
from pathlib import Path
from typing import Any

import torch
from mmdet.evaluation import CocoMetric, DumpDetResults
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ghostdet.components import coco_metrics
from ghostdet.datasets import check_dataset, check_evaluation
from ghostdet.errors import UserError
from ghostdet.export.exported import ExportedDetector, is_exported
from ghostdet.findings import findings_table, shorten
from ghostdet.weights import weights_of
from ghostdet.weights.source import REMOTE

from .amp import use_amp
from .batch import scale_lr
from .checkpoint import CheckpointGuardHook, read_checkpoint
from .config import (
    check_num_classes,
    check_writable,
    config_mistakes,
    require,
    require_detector,
)
from .launch import on_first_rank, restarted, start_processes
from .loops import use_exact_loops
from .model import dataset_meta_of
from .preflight import preflight
from .saving import (
    begun,
    find_whole_checkpoint,
    set_aside,
    use_safe_checkpoints,
)
from .survive import SurviveHook, lost_peer
from .tasks import CLASSIFICATION, task_of


def train(
    cfg: Config,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = True,
    check: bool = True,
) -> Runner:
    """Train a detector or classifier, validating as the config says.

    Args:
        cfg: A config from :func:`load_config`.
        resume: ``'auto'`` for the latest checkpoint in ``cfg.work_dir``, or the path
            of one.
        amp: Mixed precision, on a GPU.
        auto_scale_lr: Let the learning rate follow the global batch of this run, from
            the config's ``auto_scale_lr.base_batch_size``, where it has that.
        check: Check at the start what the run needs
            (:func:`~ghostdet.engine.preflight`, quick).

    Returns:
        The Runner, trained.

    Raises:
        UserError: If the data set, a checkpoint or an option cannot be used, or
            ``cfg.work_dir`` cannot be written; if a loss is not finite, the disk is
            full, or another rank is gone.
        SystemExit: With 143 upon SIGTERM, when a checkpoint is written.
    """
    require(cfg, "model", "train_dataloader", "train_cfg", "optim_wrapper")
    start_processes(cfg)
    check_writable(cfg.work_dir)
    if amp:
        if not torch.cuda.is_available():
            raise UserError("--amp needs a GPU and none is to be seen; leave it out")
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.loss_scale = "dynamic"
    if restarted() and begun(cfg.work_dir):
        resume = "auto"
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == "auto" else resume
    trained = _check_start(cfg)
    if check:
        on_first_rank(_preflight, cfg)
    resumed = cfg.load_from if cfg.get("resume") else None
    on_first_rank(set_aside, cfg.work_dir, resumed)
    lr = scale_lr(cfg) if auto_scale_lr else "that of the config, as it is"
    use_exact_loops(cfg)
    use_safe_checkpoints(cfg)
    try:
        with config_mistakes(cfg):
            runner = _build_runner(cfg)
            runner.register_hook(SurviveHook())
            runner.logger.info(f"Learning rate: {lr}")
            _check_classes(runner, "train_loop", "val_loop")
            _check_names(runner, "train_loop", trained, cfg.get("load_from"))
            runner.train()
    except RuntimeError as error:
        if not lost_peer(error):
            raise
        raise UserError(
            f"rank {get_rank()} lost another rank: why that ended stands above, or, "
            "if it was killed, in torchrun's report below; --resume goes on from the "
            "last checkpoint"
        ) from error
    return runner


def test(
    cfg: Config,
    checkpoint: str | Path,
    out: str | None = None,
    show_dir: str | None = None,
    amp: bool = False,
) -> dict[str, float]:
    """Evaluate a checkpoint or an exported detector on the config's test set.

    Args:
        cfg: A config from :func:`load_config`.
        checkpoint: Path of a checkpoint trained with the same model, or of an
            ``.onnx`` or ``.xml`` file, which takes the place of the config's model.
        out: A ``.pkl`` file for the predictions, in MMDetection's format.
        show_dir: A folder for pictures with ground truth and detections.
        amp: Mixed precision: with fp16 on a GPU, bf16 on a CPU.

    Returns:
        The metrics, such as ``coco/bbox_mAP``.

    Raises:
        UserError: If the data set, the checkpoint or an option cannot be used,
            ``cfg.work_dir`` cannot be written, or nothing at all was detected.
    """
    require(cfg, "model", "test_dataloader", "test_cfg", "test_evaluator")
    check_writable(cfg.work_dir)
    if out is not None:
        if not out.endswith((".pkl", ".pickle")):
            raise UserError(f"--out is {out!r}, expected a file that ends in .pkl")
        check_writable(os.path.dirname(out) or ".", "--out")
    if show_dir is not None:
        require_detector(cfg, "--show-dir")
    if is_exported(checkpoint):
        require_detector(cfg, "an exported file")
        if cfg.launcher != "none":
            raise UserError(f"{checkpoint} runs in one process; leave out --launcher")
        cfg.model = dict(
            type="mmdet.ExportedDetector",
            path=str(checkpoint),
            precision="bf16" if amp else "fp32",
        )
        cfg.load_from = cfg.data_preprocessor = None
        trained = {}
    else:
        trained = dataset_meta_of(cfg, checkpoint, read_checkpoint(str(checkpoint)))
        cfg.load_from = str(checkpoint)
    start_processes(cfg)
    on_first_rank(check_data, cfg, "test")
    if show_dir is not None:
        check_writable(show_dir, "--show-dir")
        hooks = cfg.get("default_hooks") or {}
        if not (hooks.get("visualization") and cfg.get("visualizer")):
            raise UserError(
                f"--show-dir needs default_hooks=dict(visualization=dict("
                f"type='DetVisualizationHook')) and a visualizer, which {cfg.filename} "
                "has not; copy them from configs/_base_/default_runtime.py"
            )
        # Absolute, since the hook joins it to the work directory.
        cfg.default_hooks.visualization.update(
            draw=True, test_out_dir=os.path.abspath(show_dir)
        )
    with config_mistakes(cfg):
        runner = _build_runner(cfg)
        _check_names(runner, "test_loop", trained, checkpoint)
        _check_classes(runner, "test_loop")
        if amp and not is_exported(checkpoint):
            use_amp(getattr(runner.model, "module", runner.model))
        if out is not None:
            runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=out))
        metrics = runner.test()
    if not metrics and any(map(_is_coco, runner.test_evaluator.metrics)):
        raise UserError(
            f"no metrics: with {checkpoint}, nothing scores above the config's "
            "score_thr on any image; train for longer, or lower "
            "model.test_cfg.score_thr"
        )
    return metrics


def _preflight(cfg: Config) -> None:
    """Check quickly what the run needs, and show it."""
    findings = preflight(cfg, quick=True)
    failures = [finding for finding in findings if finding.status == "fail"]
    if failures:
        reasons = "\n".join(f"- {f.check}: {f.error().text}" for f in failures)
        if len(failures) == 1:
            text = failures[0].error().text
        else:
            text = f"{cfg.filename} cannot be run:\n{reasons}"
        raise UserError(f"{text}\n--no-check goes on in spite of that")
    print(findings_table(findings))


def _check_start(cfg: Config) -> dict[str, Any]:
    """Find and check the checkpoint from which a run starts or goes on.

    Returns:
        What the run that goes on was trained on, empty if none does.
    """
    if cfg.get("resume") and not cfg.get("load_from"):
        cfg.load_from = on_first_rank(find_whole_checkpoint, cfg.work_dir)
        if cfg.load_from is None:
            print_log(
                f"Nothing to resume in {cfg.work_dir}: starting from the beginning",
                logger="current",
            )
            cfg.resume = False
    path = cfg.get("load_from")
    if not path or ("://" in path and not path.startswith(REMOTE)):
        return {}  # MMEngine's own schemes
    state = read_checkpoint(path)
    # MMEngine initialises a model before it loads all of it: a download for nothing.
    backbone = cfg.model.get("backbone") or {}
    allowed = [hook.get("allow") or () for hook in cfg.get("custom_hooks") or []]
    if "checkpoint" in (cfg.model.get("init_cfg") or {}) and not any(allowed):
        cfg.model.init_cfg = None
    if "checkpoint" in (backbone.get("init_cfg") or {}) and not any(
        re.match(pattern, name)
        for patterns in allowed
        for pattern in ([patterns] if isinstance(patterns, str) else patterns)
        for name in ("backbone.", *weights_of(state))
        if name.startswith("backbone.")
    ):
        backbone.init_cfg = None
    if not cfg.get("resume"):
        return {}
    if not {"meta", "message_hub"} <= state.keys():
        raise UserError(
            f"{cfg.load_from} holds weights without the state of a run, so there "
            "is nothing to resume; to start from the weights, give "
            f"--cfg-options load_from={cfg.load_from} in place of --resume"
        )
    # MMEngine restores it too, after it has built the sampler with another.
    if cfg.get("randomness", {}).get("seed") is None:
        cfg.randomness = {
            **cfg.get("randomness", {}),
            "seed": state["meta"].get("seed"),
        }
    return state["meta"].get("dataset_meta") or {}


def check_data(cfg: Config, part: str) -> None:
    """Check data set and evaluator's file of ``train``, ``val`` or ``test``."""
    if cfg.get(f"{part}_dataloader"):
        check_dataset(cfg[f"{part}_dataloader"].dataset)
    evaluator = f"{part}_evaluator"
    for key, metric in coco_metrics(cfg.get(evaluator), evaluator):
        check_evaluation(metric["ann_file"], metric.get("backend_args"), key)


def _check_names(
    runner: Runner, loop: str, trained: dict[str, Any], checkpoint: str | Path | None
) -> None:
    """Check that folders are of the classes that a classifier knows.

    Of others, as many, the labels would be numbers of other classes.
    """
    if not isinstance(runner, Runner) or task_of(runner.cfg) is not CLASSIFICATION:
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
