import json
from pathlib import Path

import pytest

from ghostdet import CONFIGS
from ghostdet.config import load_config

VERSIONS = dict(python="3.11.7", torch="2.14.1", mmengine="0.10.7")


@pytest.fixture
def record(tmp_path):
    """A function that writes the ``run.json`` of a finished run."""

    def write(folder, config, metrics, options=None, seed=0, **changes) -> Path:
        work_dir = tmp_path / folder
        work_dir.mkdir()
        cfg = load_config(f"{CONFIGS}/{config}.py", work_dir, cfg_options=options)
        unit = "epoch" if "max_epochs" in cfg.train_cfg else "iter"
        length = cfg.train_cfg[f"max_{unit}s"]
        epoch_length = 10 if unit == "epoch" else None
        last = length * (epoch_length or 1)
        start = dict(
            seed=seed,
            ranks=1,
            device="CPU",
            images=16,
            versions=VERSIONS,
            resumed_from_iter=0,
        )
        run = dict(
            name=Path(config).name,
            config=cfg.to_dict(),
            starts=[start],
            epoch_length=epoch_length,
            unit=unit,
            length=length,
            losses=[dict(iter=i, seconds=i / 4, loss=1 / i) for i in (1, last)],
            evaluations=[dict(iter=last, seconds=last / 4, **metrics)],
            trained=last,
        )
        (work_dir / "run.json").write_text(json.dumps({**run, **changes}))
        return work_dir

    return write


@pytest.fixture
def edit():
    """A function that lets another change the ``run.json`` of a run."""

    def change(work_dir, function):
        file = work_dir / "run.json"
        run = json.loads(file.read_text())
        function(run)
        file.write_text(json.dumps(run))
        return work_dir

    return change
