import sqlite3
from contextlib import closing

import pytest
from unchecked import train

from ghostdet.engine import vis_backends as logging
from ghostdet.engine.vis_backends import BACKENDS, log_to
from ghostdet.errors import UserError


@pytest.fixture
def twice(tiny, tmp_path, monkeypatch):
    """A function: trains two iterations, resumes for two more, logging to a backend."""
    for variable in ("MLFLOW_TRACKING_URI", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)

    def run(name):
        options = {"default_hooks.logger.interval": 1, "train_cfg.val_interval": 99}
        for iters, resume in ((2, None), (4, "auto")):
            cfg = tiny({**options, "train_cfg.max_iters": iters})
            log_to(cfg, [name])
            train(cfg, resume)
        return tmp_path / "run"

    return run


def test_tensorboard_goes_on_in_the_same_curve(twice):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(twice("tensorboard") / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]


def test_mlflow_has_both_runs_and_all_steps(twice):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    work_dir = twice("mlflow")
    with closing(sqlite3.connect(work_dir / "mlflow.db")) as database:
        steps = database.execute(
            "SELECT step FROM metrics WHERE key = 'loss' ORDER BY step"
        ).fetchall()
        names = database.execute("SELECT name, status FROM runs").fetchall()
    assert steps == [(1,), (2,), (3,), (4,)]
    assert names == [("run", "FINISHED")] * 2


def test_wandb_needs_no_network(twice):
    pytest.importorskip("wandb")
    assert len(list((twice("wandb") / "wandb").glob("offline-run-*/*.wandb"))) == 2


@pytest.mark.parametrize("name", BACKENDS)
def test_missing_package(tiny, monkeypatch, name):
    monkeypatch.setattr(logging, "find_spec", lambda m: m not in BACKENDS[name] or None)
    with pytest.raises(UserError, match=f"to {name} needs .*pip install {name}$"):
        log_to(tiny(), list(BACKENDS))
    monkeypatch.setattr(logging, "find_spec", lambda module: None)
    with pytest.raises(UserError, match="pip install tensorboard mlflow$"):
        log_to(tiny(), ["tensorboard", "mlflow"])


def test_other_names(tiny):
    with pytest.raises(UserError, match="to comet, expected any of tensorboard, ml"):
        log_to(tiny(), ["comet", "tensorboard"])
    with pytest.raises(UserError, match="has no visualizer"):
        log_to(tiny({"visualizer": None}), ["tensorboard"])


def test_backends_of_the_config_stay(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(logging, "find_spec", lambda module: module)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    cfg = tiny()
    for _ in range(2):  # as where the dumped config of a run is run again
        log_to(cfg, ["mlflow", "tensorboard"])
    local, mlflow, tensorboard = cfg.visualizer.vis_backends
    assert local.type == "LocalVisBackend"
    assert mlflow.tracking_uri == "http://tracking:5000"
    assert tensorboard.save_dir == str(tmp_path / "run/tensorboard")
