import json
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config

from ghostdet import CONFIGS
from ghostdet.analysis.run_log import read_dumped_config, read_run
from ghostdet.apis import train
from ghostdet.config import load_config
from ghostdet.errors import UserError

OPTIONS = {"default_hooks.logger.interval": 1, "train_cfg.val_interval": 2}


def scalars(run: Path) -> list[list[dict]]:
    """What every start logged."""
    files = sorted(run.glob("*/vis_data/scalars.json"))
    return [[json.loads(line) for line in f.read_text().splitlines()] for f in files]


def test_starts_are_joined(tiny, tmp_path):
    """Four iterations; resumed behind two; then cut short while a line was written."""
    train(tiny(OPTIONS))
    train(tiny(OPTIONS), resume=str(tmp_path / "run/iter_2.pth"))
    first, second = scalars(tmp_path / "run")
    assert [row["step"] for row in first + second] == [1, 2, 2, 3, 4, 4, 3, 4, 4]
    run = read_run(tmp_path / "run")
    assert [point.iteration for point in run.losses] == [1, 2, 3, 4]
    assert [point.iteration for point in run.evaluations] == [2, 4]
    kept = first[:2] + second[:2]
    assert [p.values["loss"] for p in run.losses] == [row["loss"] for row in kept]
    assert run.losses[-1].seconds == pytest.approx(sum(row["time"] for row in kept))
    assert (run.name, run.unit, run.length) == (
        "retinanet_ghostnet_small_bccd",
        "iter",
        4,
    )
    assert (run.trained, run.seed, run.gpus, run.batches) == (4, 0, 1, [2, 2])
    assert run.final is run.evaluations[-1]

    file = max((tmp_path / "run").glob("*/vis_data/scalars.json"))
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], lines[2][:50]]))
    assert read_run(tmp_path / "run").final is None
    file.write_text("\n".join([lines[0][:50], *lines[1:]]))
    with pytest.raises(UserError, match="json, line 1: not JSON"):
        read_run(tmp_path / "run")
    file.write_text("\n".join(lines))

    # A start from the beginning takes the place of what was before.
    log = max((tmp_path / "run").glob("*/*.log"))
    log.write_text(log.read_text().replace("resumed epoch", "no epoch"))
    run = read_run(tmp_path / "run")
    assert len(run.configs) == 1
    assert [point.iteration for point in run.losses] == [3, 4]


def test_a_run_that_counts_epochs(tiny, tmp_path):
    """Two epochs of three iterations, of which the last is not logged."""
    options = {
        **OPTIONS,
        "default_hooks.logger.interval": 2,
        "default_hooks.logger.log_metric_by_epoch": True,
        "default_hooks.checkpoint.by_epoch": True,
        "default_hooks.checkpoint.interval": 1,
        "log_processor.by_epoch": True,
        "train_dataloader.sampler.type": "DefaultSampler",
        **{f"train_dataloader.dataset.datasets.{i}.indices": 3 for i in (0, 1)},
    }
    cfg = tiny(options)
    cfg.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=2, val_interval=1)
    train(cfg)
    run = read_run(tmp_path / "run")
    assert (run.unit, run.epoch_length, run.trained, run.length) == ("epoch", 3, 2, 2)
    assert [point.iteration for point in run.losses] == [2, 5]
    assert [point.iteration for point in run.evaluations] == [3, 6]


def test_no_run(tmp_path, trained):
    with pytest.raises(UserError, match=r"holds 0 configs \(none\)"):
        read_run(tmp_path)
    shutil.copy(next(trained.glob("*.py")), tmp_path)
    with pytest.raises(UserError, match="holds no run: no"):
        read_run(tmp_path)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    next(tmp_path.glob("*/*.log")).unlink()
    with pytest.raises(UserError, match="no log at .*copy the whole work directory"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "name", ["faster_rcnn_mobilenetv3_fpn", "light/light_m_416_coco"]
)
def test_dumped_config_against_mmengine(tmp_path, name):
    cfg = load_config(f"{CONFIGS}/{name}.py")
    cfg.own = {"not a name": [dict(a=-1.5, b=None), ()], "class": {1: "'\"\n"}}
    cfg.dump(tmp_path / "config.py")
    expected = Config.fromfile(tmp_path / "config.py").to_dict()
    assert read_dumped_config(tmp_path / "config.py") == expected


@pytest.mark.parametrize(
    "code",
    [
        "open({!r}, 'w')",
        "import pathlib; pathlib.Path({!r}).touch()",
        "a = open({!r}, 'w')",
        "a = dict(b=[1, (open({!r}, 'w'),)])",
        "a = dict(**{{'b': open({!r}, 'w')}})",
        "a = dict(*[open({!r}, 'w') and {{}}])",
        'a = f"{{open({!r}, str(chr(119)))}}"',
        "a = (lambda: open({!r}, 'w'))()",
        "a = [open(name, 'w') for name in [{!r}]]",
        "a = 1 if open({!r}, 'w') else 2",
        "a: open({!r}, 'w') = 1",
        "dict = lambda **k: open({!r}, 'w')\na = dict(b=1)",
        "class A(dict(a=type)['a']): b = open({!r}, 'w')",
    ],
)
def test_hostile_config(tmp_path, code):
    planted, file = tmp_path / "planted", tmp_path / "config.py"
    file.write_text(code.format(str(planted)))
    with pytest.raises(UserError, match="read as literals and not run"):
        read_dumped_config(file)
    assert not planted.exists()
    exec(file.read_text(), {})
    assert planted.exists()  # it would have


@pytest.mark.parametrize("text", ["a = " + "(" * 10**5, "a = " + "-" * 10**5, "\0"])
def test_config_that_cannot_be_parsed(tmp_path, text):
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(UserError, match="is not a config that MMEngine wrote"):
        read_dumped_config(tmp_path / "config.py")
