import json

import cv2
import pytest
from mmdet.registry import MODELS as DETECTORS
from mmengine.registry import MODELS, DefaultScope

from ghostdet import CONFIGS
from ghostdet.analysis import complexity
from ghostdet.analysis.results_table import write_table
from ghostdet.config import load_config
from ghostdet.errors import UserError

CELLS = "bccd/retinanet_ghostnet_small_bccd"
DIGITS = "classification/ghostnet_digits"


def ap(value):
    sizes = {f"coco/bbox_mAP_{key}": value for key in ("50", "75", "m", "l")}
    return {"coco/bbox_mAP": value, **sizes, "coco/bbox_mAP_s": -1}


def top(one, five=100):
    return {"accuracy/top1": one, "accuracy/top5": five}


def cells_of(text):
    """The first row of a table, by heading."""
    head, _, line = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()[:3]
    ]
    return dict(zip(head, line))


def test_table(record, tmp_path):
    options = {"train_cfg.max_iters": 4, "work_dir": "x"}
    runs = [
        record(name, CELLS, ap(value), {**options, "log_level": name}, seed)
        for name, value, seed in (("b", 0.27, 1), ("a", 0.25, 0))
    ]
    text = write_table([*runs, tmp_path / "a/../b"], tmp_path / "out")
    assert text == (tmp_path / "out/table.md").read_text()
    assert cv2.imread(str(tmp_path / "out/curves.png")).std() > 1
    cells = cells_of(text)
    expected = {
        "config": "retinanet_ghostnet_small_bccd",
        "backbone, params": "0.65M",
        "backbone, MACs at 224x224": "38.6M",
        "paper, mAP": "-",
        "difference": "-",
        "AP": "26.0 ± 1.4",
        "APs": "-",
        "seeds": "0, 1",
        "GPUs": "1 CPU",
        "global batch": "16",
        "training, s": "1 ± 0",
    }
    assert {key: cells[key] for key in expected} == expected
    assert "- `train_cfg.max_iters: 450 and 4`" in text.splitlines()
    assert "Versions: python 3.11.7, torch 2.14.1, mmengine 0.10.7." in text
    (row,) = json.loads((tmp_path / "out/table.json").read_text())["rows"]
    assert row["AP"]["std"] == pytest.approx(2**0.5)
    assert [run["AP"] for run in row["runs"]] == [25, 27]


def test_classes(record, tmp_path):
    runs = [
        record(str(seed), CELLS, {**ap(0.3), "coco/a b_precision": value}, seed=seed)
        for seed, value in enumerate((0.2, 0.4))
    ]
    assert "| class | AP |" not in write_table([record("c", CELLS, ap(0.3))], tmp_path)
    assert "\n| a b | 30.0 ± 14.1 |\n" in write_table(runs, tmp_path)
    empty = record("d", CELLS, {**ap(0.3), "coco/a b_precision": float("nan")})
    assert "\n| a b | - |\n" in write_table([empty], tmp_path)


def test_a_run_of_ours(trained, tmp_path):
    """A run of four iterations, as ``train`` leaves it."""
    cells = cells_of(text := write_table([trained], tmp_path / "out"))
    assert (cells["seeds"], cells["GPUs"][:2], cells["global batch"]) == (
        "0",
        "1 ",
        "2",
    )
    assert 0 <= float(cells["AP"]) <= 100 and cells["backbone, params"] == "0.65M"
    assert "- `train_cfg.max_iters: 450 and 4`" in text
    assert "Hook" not in text and "Loop" not in text


def test_a_run_that_stopped_early(record, tmp_path):
    evaluations = [dict(iter=4, seconds=1, **ap(0.2))]
    run = record("a", CELLS, {}, trained=4, evaluations=evaluations, stopped=True)
    assert cells_of(write_table([run], tmp_path))["AP"] == "20.0"


def test_another_network_is_counted(record, tmp_path):
    wider = {"model.backbone.widen_factor": 1.0, "model.neck.widen_factor": 1.0}
    cells = cells_of(write_table([record("a", CELLS, ap(0.2), wider)], tmp_path))
    assert cells["backbone, params"] == "2.52M"
    assert cells["backbone, MACs at 224x224"] == "131.1M"


PIPELINE = "val_dataloader.dataset.pipeline"


@pytest.mark.parametrize(
    "options, shown",
    [
        ({"model.backbone.init_cfg": None, "optim_wrapper.optimizer.lr": 0.01}, True),
        ({f"{PIPELINE}.1.scale": (1000, 600)}, False),
    ],
)
def test_beside_the_paper(record, tmp_path, options, shown):
    run = record("a", "faster_rcnn_mobilenetv2_fpn", ap(0.25), options)
    text = write_table([run], tmp_path / "out")
    cells = cells_of(text)
    expected = ("27.5", "-2.5") if shown else ("-", "-")
    assert (cells["paper, mAP"], cells["difference"]) == expected
    assert cells["backbone, params"] != "-"
    for key in options:
        assert f"- `{key}" in text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"optim_wrapper.optimizer.weight_decay": 0.1}, "weight_decay: 0.05 and 0.1\n"),
        ({"load_from": "a.pth"}, "load_from: None and a.pth\n"),
        ({}, "images per update: 16 and 32\n"),
    ],
)
def test_runs_that_cannot_be_compared(record, edit, tmp_path, change, message):
    runs = record("a", CELLS, ap(0.2)), record("b", CELLS, ap(0.2), change, seed=1)
    if not change:
        edit(runs[1], lambda run: run["starts"][0].update(images=32))
    with pytest.raises(
        UserError, match=rf"a and \S+/b are runs.* not comparable:(.|\n)*{message}"
    ):
        write_table(runs, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "other, message",
    [
        ((CELLS, ap(0.2)), "a and .*/b are both runs .* seed 0"),
        (
            (DIGITS, top(90)),
            "/a has a detector and .*/b has a classifier: make a table of",
        ),
    ],
)
def test_runs_of_no_one_table(record, tmp_path, other, message):
    runs = record("a", CELLS, ap(0.2)), record("b", *other)
    with pytest.raises(UserError, match=message):
        write_table(runs, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_all_problems_are_named_at_once(record, edit, tmp_path):
    runs = [
        record("a", CELLS, ap(0.2), trained=4),
        record("b", CELLS, ap(0.2), evaluations=[]),
        tmp_path / "c",
    ]
    edit(runs[1], lambda run: run["starts"][0].update(ranks=8))
    with pytest.raises(UserError) as caught:
        write_table(runs, tmp_path / "out")
    name = "retinanet_ghostnet_small_bccd.py"
    lines = caught.value.text.splitlines()[1:]
    assert lines[:2] == [
        f"{runs[0]} has trained 4 of 450 iterations; to finish it, type python "
        f"tools/train.py {runs[0]}/{name} --work-dir {runs[0]} --resume",
        f"{runs[1]} has trained 450 of 450 iterations and was not evaluated there; to "
        f"finish it, type tools/dist_train.sh {runs[1]}/{name} 8 --work-dir {runs[1]} "
        "--resume",
    ]
    assert lines[2].startswith(f"{runs[2]} has no run.json")


def test_nothing_of_a_foreign_run_is_called(record, edit, tmp_path):
    """MMEngine imports and calls what ``type`` names, be it of no registry."""
    planted = tmp_path / "planted"
    component = dict(type="subprocess.run", args=["touch", str(planted)])
    run = record("a", CELLS, ap(0.25))
    edit(run, lambda run: run["config"]["model"].update(backbone=component))
    assert "| - | - | - | 25.0 |" in write_table([run], tmp_path / "out")
    assert not planted.exists()
    MODELS.build(component)
    assert planted.exists()  # it would have


def test_table_of_classifiers(record, tmp_path):
    runs = [record(str(i), DIGITS, top(50 + 2 * i), seed=i) for i in (0, 1)]
    text = write_table(runs, tmp_path / "out")
    cfg = load_config(f"{CONFIGS}/{DIGITS}.py")
    with DefaultScope.overwrite_default_scope("mmdet"):
        params = sum(p.numel() for p in DETECTORS.build(cfg.model).parameters())
    macs = complexity(cfg, (32, 32))["macs"]["total"]
    assert cells_of(text) == {
        "config": "ghostnet_digits",
        "image": "32x32",
        "params": f"{params / 1e6:.2f}M",
        "MACs": f"{macs / 1e6:.1f}M",
        "paper, top-1": "-",
        "top-1": "51.0 ± 1.4",
        "top-5": "100.0 ± 0.0",
        "difference": "-",
        "seeds": "0, 1",
        "training, s": "100 ± 0",
        "GPUs": "1 CPU",
        "global batch": "16",
    }
    (row,) = json.loads((tmp_path / "out/table.json").read_text())["rows"]
    assert (row["params"], row["macs"], row["shape"]) == (params, macs, [32, 32])
