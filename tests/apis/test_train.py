import gc
import json
import pickle
import signal
import weakref
from pathlib import Path

import numpy as np
import pytest
from mmdet.registry import LOOPS
from mmengine.config import Config
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from unchecked import train

from ghostdet import apis
from ghostdet.errors import UserError
from ghostdet.models import GhostNet

NO_VALIDATION = {"train_cfg.val_interval": 99}


def losses(runner) -> np.ndarray:
    """The loss of every iteration."""
    return runner.message_hub.get_scalar("train/loss").data[0]


def test_resume_goes_on_as_if_never_stopped(tiny, tmp_path, trained):
    # Four iterations at once; then two, and two more in another run. Augmentation is
    # random, but its numbers are drawn again for the batches that are passed over.
    whole = losses(train(tiny(NO_VALIDATION, work_dir=tmp_path / "whole")))
    first = train(tiny({**NO_VALIDATION, "train_cfg.max_iters": 2}))
    second = train(tiny(NO_VALIDATION), resume="auto")
    assert (first.iter, second.iter) == (2, 4)
    assert losses(first) == pytest.approx(whole[:2], rel=1e-6)
    assert losses(second) == pytest.approx(whole, rel=1e-6)
    assert len(set(whole)) == 4
    named = train(tiny(NO_VALIDATION), resume=str(trained / "iter_2.pth"))
    assert losses(named) == pytest.approx(whole, rel=1e-6)
    dumped = Config.fromfile(tmp_path / f"run/{Path(named.cfg.filename).name}")
    assert not dumped.resume and dumped.load_from is None  # for another run
    assert dumped.model.to_dict() == tiny(NO_VALIDATION).model.to_dict()


def test_a_rehearsal_changes_nothing(tiny, tmp_path):
    runs, handler = {"with": apis.train, "without": train}, signal.SIG_DFL
    signal.signal(signal.SIGTERM, handler)
    found = [
        losses(run(tiny(NO_VALIDATION, work_dir=tmp_path / name))).tolist()
        for name, run in runs.items()
    ]
    assert found[0] == found[1]
    left, others = ({p.suffix for p in (tmp_path / n).iterdir()} for n in runs)
    assert left == others and signal.getsignal(signal.SIGTERM) is handler


def test_a_run_leaves_no_model_behind(tiny):
    model = weakref.ref(train(tiny({**NO_VALIDATION, "train_cfg.max_iters": 1})).model)
    gc.collect()
    assert model() is None


@LOOPS.register_module()
class OwnValLoop(BaseLoop):
    """A loop that shares nothing with MMEngine's, as for several datasets."""

    def __init__(self, runner, dataloader, evaluator):
        self._runner = runner

    def run(self):
        return {}


@LOOPS.register_module()
class OwnTrainLoop(EpochBasedTrainLoop):
    """A loop that cannot resume within an epoch."""


def test_loops_of_a_project(tiny):
    options = {"train_dataloader.sampler.type": "DefaultSampler"}
    cfg = tiny({**options, "val_cfg.type": "OwnValLoop"})
    cfg.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=1)
    with pytest.raises(SystemExit):
        apis.train(cfg, minutes=1e-9)  # one iteration of six
    cfg = tiny({**NO_VALIDATION, **options})
    cfg.train_cfg = dict(type="OwnTrainLoop", max_epochs=1, val_interval=99)
    runner = train(cfg, resume="auto")
    assert runner.iter == runner.max_iters
    assert {s._global_step for s in runner.param_schedulers} == {runner.iter}


@pytest.mark.parametrize("option", ["patience", "minutes"])
def test_limits_that_are_refused(tiny, option):
    for value in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match=f"^--{option} is {value}, expected"):
            train(tiny({"load_from": "nowhere.pth"}), **{option: value})


def test_failed_check_can_be_overruled(tiny, own_cells):
    path = own_cells / "annotations/train.json"
    coco = json.loads(path.read_text())
    for annotation in coco["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x, y, x + w, y + h]
    path.write_text(json.dumps(coco))
    options = {**NO_VALIDATION, "train_cfg.max_iters": 1}
    with pytest.raises(UserError, match="--no-check starts the run") as caught:
        apis.train(tiny(options, own_cells))
    assert "bbox is [x1, y1, x2, y2]" in caught.value.text
    assert train(tiny(options, own_cells)).iter == 1


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"model.backbone.depth": 50},
            "cannot be run: GhostNet: .*argument 'depth'; correct",
        ),
        (
            {"train_dataloader.persistent_workers": True},
            "persistent_workers option needs num_workers > 0",
        ),
        ({"train_dataloader.sampler.type": "Some"}, "Some is not in the .* sampler re"),
        ({"custom_hooks": [{"interval": 1}]}, 'run: .*key "type", but got .*; correct'),
        ({"custom_hooks": [3]}, "run: hook should be .*dict, but got 3; correct"),
        ({"default_hooks": 3}, 'wrong type .* at `if "checkpoint"'),
        ({"optim_wrapper.optimizer": 3}, 'wrong type .* at `if "lr" not in opt'),
        ({"train_dataloader.batch_size": "2"}, "wrong type .* at .*self.total / s"),
        ({"load_from": 3}, "wrong type .* at `if not path or"),
    ],
)
def test_mistakes_in_the_config(tiny, options, message):
    for run in (train, apis.train):
        with pytest.raises(UserError, match=message):
            run(tiny(options))


def test_bugs_keep_their_traceback(tiny, monkeypatch):
    def forward(self, x):
        dict(1, 2, 3)

    monkeypatch.setattr(GhostNet, "forward", forward)
    with pytest.raises(TypeError, match="dict expected at most 1 argument"):
        train(tiny())


def test_evaluation(tiny, trained, tmp_path):
    out, pictures = tmp_path / "new/out.pkl", tmp_path / "pictures"
    metrics = apis.test(
        tiny({"visualizer": None, "default_hooks.visualization": None}),
        trained / "iter_4.pth",
        out=str(out),
        show_dir=str(pictures),
    )
    assert 0 <= metrics["coco/bbox_mAP"] <= metrics["coco/bbox_mAP_50"] <= 1
    predictions = pickle.loads(out.read_bytes())
    names = {Path(p["img_path"]).name for p in predictions}
    assert len(names) == 4
    assert all(len(p["pred_instances"]["scores"]) for p in predictions)
    assert {path.name for path in pictures.iterdir()} == names


@pytest.mark.parametrize(
    "options, arguments, message",
    [
        ({}, {"out": "out.json"}, "ends in .pkl"),
        ({}, {"out": "file/out.pkl"}, "'file' cannot be .* with --out"),
        ({}, {"show_dir": "file/below"}, "with --show-dir"),
        ({"test_evaluator.ann_file": "nowhere.json"}, {}, "test_evaluator.ann_file=F"),
        ({"test_dataloader.dataset.ann_file": "nowhere.json"}, {}, "nowhere.json: no"),
        ({"test_dataloader": None}, {}, "has no test_dataloader"),
        ({"model.bbox_head.num_classes": 4}, {}, "num_classes=4, .* has 3 classes: R"),
        ({"model.test_cfg.score_thr": 1.0}, {}, "nothing scores above the config's sc"),
    ],
)
def test_evaluation_that_is_refused(
    tiny, trained, tmp_path, monkeypatch, options, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        apis.test(tiny(options), trained / "iter_4.pth", **arguments)


def image_of(root: Path, part: str, index: int = 0) -> Path:
    images = json.loads((root / f"annotations/{part}.json").read_text())["images"]
    return root / "images" / images[index]["file_name"]


def cut(path: Path) -> bytes:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return content


def test_what_was_written_survives_a_broken_image(tiny, own_cells, tmp_path):
    # Validation fails after the fourth iteration. Once repaired, the run continues.
    path = image_of(own_cells, "test", 3)
    content = cut(path)
    with pytest.raises(UserError, match=f"{path.name}: cannot be read as an image"):
        train(tiny(data_root=own_cells))
    assert {p.name for p in (tmp_path / "run").glob("*.pth")} == {
        "iter_2.pth",
        "iter_4.pth",
    }
    path.write_bytes(content)
    options = {"train_cfg.max_iters": 5, "train_cfg.val_interval": 5}
    assert train(tiny(options, own_cells), resume="auto").iter == 5
