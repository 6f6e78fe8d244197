"""Logging to more than files: MMEngine's own backends, by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ghostdet.config import require
from ghostdet.errors import UserError

# Modules that each backend needs. MLflow keeps runs in SQLite through SQLAlchemy,
# which mlflow-skinny leaves out.
BACKENDS = {
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy"),
    "wandb": ("wandb",),
}


def log_to(cfg: Config, names: Sequence[str]) -> None:
    """Have a run logged to TensorBoard, MLflow or Weights & Biases as well.

    All of it lies in the work directory, and nothing needs a network:

    - ``tensorboard``: in ``tensorboard/``; a resumed run continues the same curves
      (``tensorboard --logdir WORK_DIR``).
    - ``mlflow``: in ``mlflow.db`` and ``mlflow/``, or where ``MLFLOW_TRACKING_URI``
      says. A resumed run is another run of the same experiment and name, with
      continued steps.
    - ``wandb``: in ``wandb/``, to be sent by ``wandb sync``, or at once where
      ``WANDB_MODE=online``. A resumed run is another run here, too.

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
    for name in dict.fromkeys(names):
        missing = [module for module in BACKENDS[name] if find_spec(module) is None]
        if missing:
            raise UserError(
                f"logging to {name} needs {' and '.join(missing)}; type "
                f"pip install {name}"
            )
        backend = _backend(name, cfg)
        # One of a type is all that MMEngine allows.
        backends = [b for b in backends if b["type"] != backend["type"]] + [backend]
    cfg.visualizer.vis_backends = backends


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
            # MMEngine copies files of the work directory into the store, which lies
            # there itself and would grow with every resume.
            artifact_suffix=(),
        )
    return dict(
        type="MLflowVisBackend",
        save_dir=str(work_dir),
        exp_name=experiment,
        run_name=work_dir.name,
        **store,
    )
