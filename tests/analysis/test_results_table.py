import json
import re
import shutil
from pathlib import Path

import cv2
import pytest
from mmdet.registry import MODELS as DETECTORS
from mmengine.registry import MODELS, DefaultScope

from ghostdet import CONFIGS, apis
from ghostdet.analysis import complexity
from ghostdet.analysis.paper import COCO
from ghostdet.analysis.results_table import write_table
from ghostdet.config import load_config
from ghostdet.errors import UserError

CONFIG = "*/vis_data/config.py"
SCALARS = "*/vis_data/scalars.json"
# The smallest run of a classifier that is evaluated twice.
DIGITS = {
    "train_cfg.max_epochs": 2,
    "train_cfg.val_interval": 1,
    "param_scheduler.0.total_steps": 2,
    **{
        f"{part}_dataloader.{key}": value
        for part in ("train", "val", "test")
        for key, value in (("num_workers", 0), ("persistent_workers", False))
    },
    **{f"{part}_evaluator.topk": (1, 5) for part in ("val", "test")},
}


def edit(run: Path, pattern: str, old: str, new: str) -> None:
    """Change a file of a run."""
    (path,) = run.glob(pattern)
    text, count = re.subn(old, new, path.read_text())
    assert count
    path.write_text(text)


@pytest.fixture
def finished(trained, tmp_path):
    """A function: a copy of a run of four iterations, with another seed and AP."""

    def copy(name, seed=0, ap=0.25):
        run = tmp_path / name
        shutil.copytree(trained, run)
        edit(run, CONFIG, r"seed=0", f"seed={seed}")
        edit(run, "*/vis_data/scalars.json", r'"coco/bbox_mAP": [^,]+', _ap(ap))
        edit(run, "*/vis_data/scalars.json", r'"coco/bbox_mAP_s": [^,]+', _ap(-1, "_s"))
        return run

    return copy


def _ap(value, key=""):
    return f'"coco/bbox_mAP{key}": {value}'


def load_digits(work_dir):
    path = f"{CONFIGS}/classification/ghostnet_digits.py"
    return load_config(path, work_dir, cfg_options=DIGITS)


@pytest.fixture(scope="module")
def trained_digits(tmp_path_factory, new_run):
    new_run()
    work_dir = tmp_path_factory.mktemp("digits")
    apis.train(load_digits(work_dir))
    return work_dir


@pytest.fixture
def classifier(trained_digits, tmp_path):
    """A function: a copy of a classifier's run of two epochs."""

    def copy(name):
        return Path(shutil.copytree(trained_digits, tmp_path / name))

    return copy


def cells_of(text):
    """The first row of a table, by heading."""
    head, _, line = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()[:3]
    ]
    return dict(zip(head, line))


def test_table(finished, tmp_path):
    edit(finished("b", 1, 0.27), CONFIG, "work_dir = '[^']+'", "work_dir = 'other'")
    edit(tmp_path / "b", CONFIG, r"/[\w/]+/bccd/", "elsewhere/")  # its data root
    text = write_table([finished("a"), tmp_path / "b"], tmp_path / "out")
    assert text == (tmp_path / "out/table.md").read_text()
    assert cv2.imread(str(tmp_path / "out/curves.png")).std() > 1
    cells = cells_of(text)
    expected = {
        "config": "retinanet_ghostnet_small_bccd",
        "backbone, params": "0.65M",  # ../shared/ghostnet-facts.md
        "backbone, MACs at 224x224": "38.6M",
        "paper, mAP": "-",
        "difference": "-",
        "AP": "26.0 ± 1.4",
        "APs": "-",
        "seeds": "0, 1",
        "GPUs": "1 CPU",
        "global batch": "2",
        "training, s": "-",  # of which nothing was logged
    }
    assert {key: cells[key] for key in expected} == expected
    assert "- `train_cfg.max_iters: 450 and 4`" in text.splitlines()
    (row,) = json.loads((tmp_path / "out/table.json").read_text())["rows"]
    assert row["AP"]["std"] == pytest.approx(2**0.5)
    assert [run["AP"] for run in row["runs"]] == [25, 27]
    assert row["runs"][0]["versions"]["mmengine"] in text


def imitate(run, config, options):
    """Make a run one of another config, as long as it is."""
    (path,) = run.glob(CONFIG)
    cfg = load_config(f"{CONFIGS}/{config}", cfg_options=options)
    own = load_config(path)
    cfg.train_cfg, cfg.default_hooks = own.train_cfg, own.default_hooks
    cfg.dump(path)
    next(run.glob("*.py")).rename(run / Path(config).name)


PIPELINE = "val_dataloader.dataset.pipeline"


@pytest.mark.parametrize(
    "options, shown",
    [
        ({}, True),
        (
            {"model.backbone.init_cfg": None, "optim_wrapper.optimizer.lr": 0.01},
            True,
        ),
        ({f"{PIPELINE}.1.scale": (1000, 600)}, False),
        ({"model.roi_head.bbox_head.num_classes": 3}, False),
        ({"model.neck.out_channels": 64}, False),
        ({"model.backbone.norm_eval": True}, False),
    ],
)
def test_beside_the_paper(finished, tmp_path, options, shown):
    """Its figure is of the network, the classes and the size of images."""
    run = finished("a")
    imitate(run, "faster_rcnn_mobilenetv2_fpn.py", options)
    text = write_table([run], tmp_path / "out")
    cells = cells_of(text)
    assert cells["AP"] == "25.0"
    expected = ("27.5", "-2.5") if shown else ("-", "-")
    assert (cells["paper, mAP"], cells["difference"]) == expected
    for key in options:
        assert key == "model.backbone.init_cfg" or f"- `{key}" in text


def test_another_run_of_that_name(finished, tmp_path):
    """The name of its config alone does not say that it is the paper's."""
    run = finished("a")
    next(run.glob("*.py")).rename(run / "faster_rcnn_mobilenetv2_fpn.py")
    text = write_table([run], tmp_path / "out")
    assert "| - | - | - | 25.0 | " in text  # nor is its backbone counted
    assert "- `model.backbone.type: MobileNetV2 and GhostNet`" in text


def test_papers_figures(project):
    """The same in the configs, the model zoo and the table."""
    zoo = (project / "docs/model_zoo.md").read_text()
    for name, figure in COCO.items():
        assert f"mAP {figure}." in Path(CONFIGS, f"{name}.py").read_text()
        assert re.search(rf"`{name}.py` \| [^|]+ \| {figure} \|", zoo)


@pytest.mark.parametrize(
    "file, old, new, message",
    [
        (CONFIG, "_decay=0.05", "_decay=0.1", r"weight_decay: 0.05 and 0.1\n"),
        (CONFIG, "max_norm=10.0", "", r"clip_grad.max_norm: 10.0 and not set\n"),
        (CONFIG, "images/", "other/", r"dataset.data_prefix.img: images/ and other/\n"),
        ("*/*.log", "GPU number: 1", "GPU number: 2", "images an update: 2 and 4"),
    ],
)
def test_runs_that_cannot_be_compared(finished, tmp_path, file, old, new, message):
    runs = finished("a"), finished("b", 1)
    edit(runs[1], file, old, new)
    with pytest.raises(
        UserError, match=rf"a and \S+/b are runs.* not comparable:(.|\n)*{message}"
    ):
        write_table(runs, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_the_same_seed_twice(finished, tmp_path):
    runs = finished("a"), finished("b")
    with pytest.raises(UserError, match="a and .*/b are runs .* seed 0 both"):
        write_table(runs, tmp_path / "out")
    write_table([runs[0], tmp_path / "b/../a"], tmp_path / "out")  # one run


def test_all_that_is_wrong_is_said_at_once(finished, tmp_path):
    runs = [finished("a"), finished("b"), tmp_path / "c"]
    edit(runs[0], CONFIG, "max_iters=4", "max_iters=8")
    edit(runs[1], CONFIG, "max_iters=4", "max_iters=9")
    edit(runs[1], "*/*.log", "GPU number: 1", "GPU number: 8")
    with pytest.raises(UserError) as caught:
        write_table(runs, tmp_path / "out")
    name = "retinanet_ghostnet_small_bccd.py"
    assert caught.value.text.splitlines()[1:] == [
        f"{runs[0]} is at iter 4 of 8; to go on, type python tools/train.py "
        f"{runs[0]}/{name} --work-dir {runs[0]} --resume",
        f"{runs[1]} is at iter 4 of 9; to go on, type tools/dist_train.sh "
        f"{runs[1]}/{name} 8 --work-dir {runs[1]} --resume",
        f"{runs[2]} holds 0 configs (none), expected the one that tools/train.py "
        "writes; give the work directory of one run",
    ]


def test_evaluated_afterwards(finished, tiny, tmp_path):
    """What died in its last evaluation is evaluated by the tool that is named."""
    run = finished("run")
    edit(run, "*/vis_data/scalars.json", '"step": 4', '"step": 2')
    with pytest.raises(UserError, match="not evaluated; type python tools/test.py"):
        write_table([run], tmp_path / "out")
    apis.test(tiny(work_dir=run), run / "iter_2.pth")
    with pytest.raises(UserError, match="tools/test.py .*/iter_4.pth --work-dir"):
        write_table([run], tmp_path / "out")  # that was another checkpoint
    (run / "last_checkpoint").write_text("moved/iter_4.pth")
    metrics = apis.test(tiny(work_dir=run), run / "iter_4.pth")
    write_table([run], tmp_path / "out")
    (row,) = json.loads((tmp_path / "out/table.json").read_text())["rows"]
    assert row["AP50"]["mean"] == pytest.approx(100 * metrics["coco/bbox_mAP_50"])


def test_nothing_of_a_foreign_run_is_called(finished, tmp_path):
    """MMEngine imports and calls what ``type`` names, be it of no registry."""
    planted, run = tmp_path / "planted", finished("a")
    component = dict(type="subprocess.run", args=["touch", str(planted)])
    literal = f"dict(type='subprocess.run', args=['touch', {str(planted)!r}])"
    edit(run, CONFIG, r"backbone=dict\(", f"backbone={literal}, deck=dict(")
    for path in [*run.glob("*.pth"), *run.glob("*.py")]:
        path.write_text(f"open({str(planted)!r}, 'w')")
    assert "| - | - | - | 25.0 |" in write_table([run], tmp_path / "out")
    assert not planted.exists()
    MODELS.build(component)
    assert planted.exists()  # it would have


def test_table_of_classifiers(classifier, tmp_path):
    """The last of what was logged, and the classifier as the run has built it."""
    runs = classifier("a"), classifier("b")
    edit(runs[1], CONFIG, "seed=0", "seed=1")
    edit(runs[1], SCALARS, r'("accuracy/top1"): [^,]+', r"\1: 50.0")
    text = write_table(runs, tmp_path / "out")
    log = next(runs[0].glob(SCALARS)).read_text()
    top1, top5 = (
        float(re.findall(rf'"accuracy/{key}": ([^,]+)', log)[-1])
        for key in ("top1", "top5")
    )
    assert 10 < top1 < 99 and top1 < top5 <= 100
    model = load_config(next(runs[0].glob("*.py"))).model
    with DefaultScope.overwrite_default_scope("mmdet"):
        params = sum(p.numel() for p in DETECTORS.build(model).parameters())
    macs = complexity(load_digits(tmp_path), (32, 32))["macs"]["total"]
    cells = cells_of(text)
    training = cells.pop("training, s")
    assert cells == {
        "config": "ghostnet_digits",
        "image": "32x32",
        "params": f"{params / 1e6:.2f}M",
        "MACs": f"{macs / 1e6:.1f}M",
        "paper, top-1": "-",
        "top-1": f"{(top1 + 50) / 2:.1f} ± {abs(top1 - 50) / 2**0.5:.1f}",
        "top-5": f"{top5:.1f} ± 0.0",
        "difference": "-",
        "seeds": "0, 1",
        "GPUs": "1 CPU",
        "global batch": "64",
    }
    assert "- `train_cfg.max_epochs: 40 and 2`" in text.splitlines()
    (row,) = json.loads((tmp_path / "out/table.json").read_text())["rows"]
    assert [run["top-1"] for run in row["runs"]] == pytest.approx([top1, 50], abs=1e-4)
    assert training == f"{row['seconds']['mean']:.0f} ± 0"
    assert (row["params"], row["macs"], row["shape"]) == (params, macs, [32, 32])


def test_classifiers_beside_the_paper(classifier, tmp_path):
    """Another size is counted, another model is not, and the paper's is of neither."""
    run = classifier("a")
    edit(run, CONFIG, "size=32", "size=64")
    edit(run, CONFIG, "'ImageClassifier'", "'mmdet.ImageClassifier'")
    edit(run, CONFIG, r"num_classes=10,", "num_classes=10, label_smoothing=0.1,")
    edit(run, SCALARS, r'("accuracy/top1"): [^,]+, "accuracy/top5": [^,]+', r"\1: 90.0")
    cells = cells_of(write_table([run], tmp_path / "out"))
    macs = complexity(load_digits(tmp_path), (64, 64))["macs"]["total"]
    assert (cells["image"], cells["MACs"]) == ("64x64", f"{macs / 1e6:.1f}M")
    assert (cells["top-1"], cells["top-5"]) == ("90.0", "-")
    crop = "train_dataloader.dataset.pipeline.0.size"
    for name, options, figure, difference in (
        ("vgg16", {}, "93.6", "-3.6"),
        ("ghost_vgg16", {"model.head.dropout": 0.1}, "93.7", "-3.7"),
        ("ghost_vgg16", {"model.head.num_classes": 9}, "-", "-"),
        ("ghost_vgg16", {crop: 64}, "-", "-"),
    ):
        imitate(run, f"classification/{name}_cifar10.py", options)
        cells = cells_of(write_table([run], tmp_path / "out"))
        assert (cells["paper, top-1"], cells["difference"]) == (figure, difference)
        assert (cells["params"] == "-") == ("model.head.num_classes" in options)


def test_a_classifier_evaluated_afterwards(classifier, new_run, tmp_path):
    run = classifier("a")
    edit(run, SCALARS, r'("accuracy/top1".*"step"): 2', r"\1: 1")
    with pytest.raises(UserError, match="tools/test.py .*/epoch_2.pth --work-dir"):
        write_table([run], tmp_path / "out")
    new_run()
    metrics = apis.test(load_digits(run), run / "epoch_2.pth")
    write_table([run], tmp_path / "out")
    (row,) = json.loads((tmp_path / "out/table.json").read_text())["rows"]
    assert row["top-1"]["mean"] == pytest.approx(metrics["accuracy/top1"], abs=1e-4)


def test_detectors_and_classifiers(finished, classifier, tmp_path):
    runs = finished("a"), classifier("b")
    with pytest.raises(
        UserError, match="/a is of a detector and .*/b of a classifier, which make two"
    ):
        write_table(runs, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
