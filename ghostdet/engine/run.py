"""Training and testing on MMEngine's Runner."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from mmdet.evaluation import DumpDetResults
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ghostdet.datasets import check_dataset
from ghostdet.errors import UserError

from .checkpoint import read_checkpoint


def train(
    cfg: Config,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
) -> Runner:
    """Train a detector, validating as the config says.

    Args:
        cfg: A config from :func:`load_config`.
        resume: ``'auto'`` for the latest checkpoint in ``cfg.work_dir``, or the path
            of one.
        amp: Mixed precision, on a GPU.
        auto_scale_lr: Scale the learning rate from the config's
            ``auto_scale_lr.base_batch_size`` to the batch of this run.

    Returns:
        The Runner, trained.

    Raises:
        UserError: If the data set, a checkpoint or an option cannot be used.
    """
    if amp:
        if not torch.cuda.is_available():
            raise UserError("--amp needs a GPU and none is to be seen; leave it out")
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.loss_scale = "dynamic"
    if auto_scale_lr:
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            raise UserError(
                "--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=N) in the "
                "config, the batch that its learning rate is for"
            )
        cfg.auto_scale_lr.enable = True
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == "auto" else resume
    if cfg.get("load_from"):
        read_checkpoint(cfg.load_from)
    for name in ("train_dataloader", "val_dataloader"):
        if cfg.get(name):
            check_dataset(cfg[name].dataset)
    runner = _build_runner(cfg)
    runner.train()
    return runner


def test(
    cfg: Config,
    checkpoint: str | Path,
    out: str | None = None,
    show_dir: str | None = None,
) -> dict[str, float]:
    """Evaluate a checkpoint on the config's test set.

    Args:
        cfg: A config from :func:`load_config`.
        checkpoint: Path of a checkpoint trained with the same model.
        out: A ``.pkl`` file for the predictions, in MMDetection's format.
        show_dir: A folder for pictures with ground truth and detections.

    Returns:
        The metrics, such as ``coco/bbox_mAP``.

    Raises:
        UserError: If the data set, the checkpoint or an option cannot be used.
    """
    if out is not None and not out.endswith((".pkl", ".pickle")):
        raise UserError(f"--out is {out!r}, expected a file that ends in .pkl")
    read_checkpoint(str(checkpoint))
    check_dataset(cfg.test_dataloader.dataset)
    cfg.load_from = str(checkpoint)
    if show_dir is not None:
        # Absolute, since the hook joins it to the work directory.
        cfg.default_hooks.visualization.update(
            draw=True, test_out_dir=os.path.abspath(show_dir)
        )
    runner = _build_runner(cfg)
    if out is not None:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=out))
    return runner.test()


def _build_runner(cfg: Config) -> Runner:
    return RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
