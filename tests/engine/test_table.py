import json
import re
import shutil
from pathlib import Path

import cv2
import pytest
from mmengine.registry import MODELS

from ghostdet import CONFIGS, engine
from ghostdet.engine.paper import COCO
from ghostdet.engine.table import write_table
from ghostdet.errors import UserError

CONFIG = "*/vis_data/config.py"


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


def test_table(finished, tmp_path):
    edit(finished("b", 1, 0.27), CONFIG, "work_dir = '[^']+'", "work_dir = 'other'")
    edit(tmp_path / "b", CONFIG, r"/[\w/]+/bccd/", "elsewhere/")  # its data root
    text = write_table([finished("a"), tmp_path / "b"], tmp_path / "out")
    assert text == (tmp_path / "out/table.md").read_text()
    assert cv2.imread(str(tmp_path / "out/curves.png")).std() > 1
    head, _, line = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    cells = dict(zip(head, line))
    expected = {
        "config": "retinanet_ghostnet_bccd",
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


def test_beside_the_paper(finished, tmp_path):
    """The name of a config says which figure is meant, whatever was trained."""
    runs = [finished("a", ap=0.25), finished("b", ap=0.3)]
    next(runs[0].glob("*.py")).rename(runs[0] / "faster_rcnn_mobilenetv2_fpn.py")
    text = write_table(runs, tmp_path / "out")
    ours, other = text.splitlines()[2:4]
    assert " | 27.5 | 25.0 | " in ours and " | -2.5 | " in ours
    assert "| - | - |" in ours  # it has another backbone, which is not counted
    assert " | - | 30.0 | " in other
    assert "faster_rcnn_mobilenetv2_fpn was not run as it is shipped" in text
    assert "- `model.backbone.type: TappedMobileNetV2 and GhostNet`" in text


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
    name = "retinanet_ghostnet_bccd.py"
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
    engine.test(tiny(work_dir=run), run / "iter_2.pth")
    with pytest.raises(UserError, match="tools/test.py .*/iter_4.pth --work-dir"):
        write_table([run], tmp_path / "out")  # that was another checkpoint
    (run / "last_checkpoint").write_text("moved/iter_4.pth")
    metrics = engine.test(tiny(work_dir=run), run / "iter_4.pth")
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
