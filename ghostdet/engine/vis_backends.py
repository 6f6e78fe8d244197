"""Log to TensorBoard, MLflow and Weights & Biases; survive logs that fail."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from ghostdet.config import require
from ghostdet.errors import UserError
from ghostdet.utils.files import expendable

# Packages that each name needs. MLflow keeps runs in SQLite through SQLAlchemy, which
# mlflow-skinny leaves out.
BACKENDS = {
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy"),
    "wandb": ("wandb",),
}


def log_to(cfg: Config, names: Sequence[str]) -> None:
    """Log a run to TensorBoard, MLflow or Weights & Biases as well.

    Logs are in the work directory, and no network is needed:

    - ``tensorboard``: ``tensorboard/``. A resumed run continues the same curves
      (``tensorboard --logdir WORK_DIR``).
    - ``mlflow``: ``mlflow.db`` and ``mlflow/``, or the store that
      ``MLFLOW_TRACKING_URI`` names. A resumed run is another run of the same experiment
      and name, and continues its steps.
    - ``wandb``: ``wandb/``, for ``wandb sync`` to send, or sent at once with
      ``WANDB_MODE=online``. A resumed run is another run, as in MLflow.

    Args:
        cfg: A config from :func:`load_config`, whose ``visualizer.vis_backends`` are
            added to.
        names: Out of ``tensorboard``, ``mlflow`` and ``wandb``.

    Raises:
        UserError: If a name is none of these, its package is not installed, or the
            config has no visualizer.

    Example:
        >>> cfg = Config(dict(work_dir='run', visualizer=dict(vis_backends=[])))
        >>> log_to(cfg, [])
        >>> cfg.visualizer.vis_backends
        []
    """
    if not names:
        return
    require(cfg, "visualizer")
    unknown = sorted(set(names) - set(BACKENDS))
    if unknown:
        raise UserError(
            f"cannot log to {', '.join(unknown)}, expected any of {', '.join(BACKENDS)}"
        )
    backends = list(cfg.visualizer.get("vis_backends") or [])
    missing = [name for name in names if not all(map(find_spec, BACKENDS[name]))]
    if missing:
        raise UserError(
            f"logging to {' and '.join(missing)} needs packages that are not "
            f"installed; type pip install {' '.join(missing)}"
        )
    for name in dict.fromkeys(names):
        backend = _backend(name, cfg)
        # MMEngine allows one of each type.
        backends = [b for b in backends if b["type"] != backend["type"]] + [backend]
    cfg.visualizer.vis_backends = backends


def forgive_logs(runner: Runner) -> None:
    """Let a run continue if a log cannot be written, as on a full disk."""
    for name, backend in runner.visualizer._vis_backends.items():
        backend.add_scalars = expendable(name)(backend.add_scalars)
    for handler in runner.logger.handlers:
        handler.handleError = expendable("the log")(_fail)


def _fail(record: logging.LogRecord) -> None:
    """Raise the error that a handler of a log was about to print."""
    raise


def _backend(name: str, cfg: Config) -> dict[str, Any]:
    work_dir = Path(cfg.work_dir).absolute()
    experiment = Path(cfg.filename).stem if cfg.filename else "ghostdet"
    if name == "tensorboard":
        return dict(type="TensorboardVisBackend", save_dir=str(work_dir / name))
    if name == "wandb":
        mode = os.environ.get("WANDB_MODE", "offline")
        return dict(
            type="WandbVisBackend",
            save_dir=str(work_dir),
            init_kwargs=dict(project=experiment, name=work_dir.name, mode=mode),
        )
    store = dict(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"))
    if not store["tracking_uri"]:
        store = dict(
            tracking_uri=f"sqlite:///{work_dir}/mlflow.db",
            artifact_location=(work_dir / name).as_uri(),
            # MMEngine copies files of the work directory into the store, which is in
            # it as well and would grow with every resume.
            artifact_suffix=(),
        )
    return dict(
        type="MLflowVisBackend",
        save_dir=str(work_dir),
        exp_name=experiment,
        run_name=work_dir.name,
        **store,
    )
