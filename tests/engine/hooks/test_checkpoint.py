"""A valid checkpoint is there at every moment of a run."""

import errno
import json
import os
import re
import shutil

import pytest
import torch
from mmengine.runner import ValLoop
from mmengine.visualization import LocalVisBackend
from unchecked import train

from ghostdet import apis
from ghostdet.engine.hooks import checkpoint
from ghostdet.engine.resume import find_latest_valid_checkpoint
from ghostdet.errors import UserError

NO_VALIDATION = {"train_cfg.val_interval": 100}


def test_a_full_disk(tiny, monkeypatch, tmp_path):
    written, replace = tmp_path / "run/iter_2.pth", os.replace

    def fail_later(source, target):
        if written.exists():
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("os.replace", fail_later)
    options = {**NO_VALIDATION, "default_hooks.checkpoint.max_keep_ckpts": 1}
    with pytest.raises(UserError, match="iter_4.pth cannot be written.*--resume"):
        train(tiny(options))
    assert [path.name for path in written.parent.glob("*.pth*")] == ["iter_2.pth"]
    assert find_latest_valid_checkpoint(written.parent) == str(written)
    monkeypatch.undo()
    assert train(tiny(options), resume="auto").iter == 4
    assert [path.name for path in written.parent.glob("*.pth*")] == ["iter_4.pth"]


def test_a_log_is_not_worth_the_run(tiny, monkeypatch, tmp_path, capsys):
    """Its folder is deleted, and the disk is full for all but checkpoints."""
    write = LocalVisBackend.add_scalars

    def fail(*arguments, **more):
        if (tmp_path / "run/iter_2.pth").exists():
            shutil.rmtree(tmp_path / "run")
        monkeypatch.setattr("logging.FileHandler.flush", full)
        write(*arguments, **more)

    def full(handler):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalVisBackend, "add_scalars", fail)
    options = {**NO_VALIDATION, "default_hooks.logger.interval": 1}
    assert train(tiny(options)).iter == 4
    output = "".join(capsys.readouterr())
    assert output.count("the log is incomplete, the run continues: [Errno 28]") == 1
    assert output.count("LocalVisBackend is incomplete") == 1
    assert "Traceback" not in output
    assert find_latest_valid_checkpoint(tmp_path / "run").endswith("iter_4.pth")


def test_the_old_is_deleted_after_the_new_is_there(tiny, monkeypatch, tmp_path):
    """The oldest of the regular checkpoints, and the best one before a better one."""
    seen = []
    write = checkpoint.atomic_write

    def note(path, content):
        write(path, content)
        seen.append({p.name for p in path.parent.glob("*.pth")})

    monkeypatch.setattr(checkpoint, "atomic_write", note)
    scores = iter([0.3, 0.2, 0.4])
    monkeypatch.setattr(
        "mmdet.evaluation.CocoMetric.compute_metrics",
        lambda *_: {"bbox_mAP": next(scores)},
    )
    options = {"train_cfg.val_interval": 1, "train_cfg.max_iters": 3}
    hook = {"interval": 1, "max_keep_ckpts": 1, "save_best": "coco/bbox_mAP"}
    options |= {f"default_hooks.checkpoint.{k}": v for k, v in hook.items()}
    train(tiny(options))
    best = "best_coco_bbox_mAP_iter_{}.pth".format
    assert seen == [
        {"iter_1.pth"},
        {"iter_1.pth", best(1)},
        {"iter_1.pth", best(1)},  # written again, with the best metric
        {"iter_1.pth", "iter_2.pth", best(1)},
        {"iter_2.pth", "iter_3.pth", best(1)},
        {"iter_3.pth", best(1), best(3)},
        {"iter_3.pth", best(3)},
    ]
    left = {path.name for path in (tmp_path / "run").glob("*.pth")}
    assert left == {"iter_3.pth", best(3)}


def test_a_new_run_archives_an_earlier_one(tiny, tmp_path):
    options = {**NO_VALIDATION, "train_cfg.max_iters": 2}
    train(tiny(options))
    run = tmp_path / "run"
    first = (run / "iter_2.pth").read_bytes()
    (run / "iter_4.pth.partial").touch()  # left by an interrupted write
    train(tiny({**options, "load_from": str(run / "iter_2.pth")}))
    assert (run / "earlier_1/iter_2.pth").read_bytes() == first
    assert (run / "earlier_1/run.json").is_file()
    assert (run / "iter_2.pth").read_bytes() != first
    assert not list(run.glob("*.partial"))


def test_weights_that_are_not_finite_are_not_saved(tiny, tmp_path, monkeypatch):
    step = torch.optim.SGD.step

    def poison(self, *args, **kwargs):
        step(self, *args, **kwargs)
        self.param_groups[0]["params"][0].data.fill_(float("nan"))

    monkeypatch.setattr(torch.optim.SGD, "step", poison)
    options = {"train_cfg.max_iters": 1, **NO_VALIDATION}
    options["optim_wrapper.optimizer.type"] = "SGD"
    with pytest.raises(UserError, match="1 of the model's weights are not finite"):
        train(tiny(options))
    assert not list((tmp_path / "run").glob("*.pth"))


def test_a_best_checkpoint_replaces_no_other(tmp_path):
    """No run is resumed from it."""
    backend = checkpoint.AtomicBackend()
    for name in ("iter_6.pth", "best_a_epoch_1.pth"):
        (tmp_path / name).touch()
        backend.remove(tmp_path / name)
    backend.put(b"", tmp_path / "best_a_epoch_2.pth")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"iter_6.pth", "best_a_epoch_2.pth"}
    backend.put(b"", tmp_path / "epoch_2.pth")
    assert not (tmp_path / "iter_6.pth").exists()


@pytest.mark.parametrize("best", [None, "coco/bbox_mAP"])
def test_what_follows_from_evaluations_is_kept(tiny, tmp_path, monkeypatch, best):
    """A run that resumes twice stops, and lowers its rate, as one without a stop."""
    scores, evaluate, now = (0.3, 0.4, 0.2, 0.39, 0.1, 0.5), ValLoop.run, []
    monkeypatch.setattr(
        ValLoop, "run", lambda loop: (now.append(loop.runner.iter), evaluate(loop))
    )
    monkeypatch.setattr(
        "mmdet.evaluation.CocoMetric.compute_metrics",
        lambda *_: {"bbox_mAP": scores[now[-1] - 1]},
    )
    stop = dict(type="EarlyStoppingHook", monitor="coco/bbox_mAP", patience=3)
    plateau = dict(type="ReduceOnPlateauLR", monitor="coco/bbox_mAP", rule="greater")
    options = {
        "train_cfg.val_interval": 1,
        "default_hooks.checkpoint.interval": 1,
        "default_hooks.checkpoint.save_best": best,
        "custom_hooks": [stop],
        "param_scheduler": [{**plateau, "patience": 1}],
    }

    def run(iters, folder="run", resume="auto"):
        more = {"train_cfg.max_iters": iters}
        return train(tiny(options | more, work_dir=tmp_path / folder), resume)

    expected = run(6, "other", None)
    assert expected.iter == 5  # three evaluations after the best
    for iters in (2, 4, 6, 6):
        runner = run(iters)
    assert runner.iter == 5
    assert runner.optim_wrapper.get_lr() == expected.optim_wrapper.get_lr()
    records = (
        json.loads((tmp_path / name / "run.json").read_text())
        for name in ("run", "other")
    )
    one, two = (
        [(e["iter"], e["coco/bbox_mAP"]) for e in record["evaluations"]]
        for record in records
    )
    assert one == two


def test_patience(tiny, tmp_path, monkeypatch, capsys):
    """A run that stopped early saves its state, and stays stopped."""
    seen = []
    # None is better: an equal one, and that of an evaluation without detections.
    scores = iter([0.3, 0.4, 0.4, None, 0.3, 0.1])

    def compute_metrics(*_):
        score = next(scores)
        return {} if score is None else {"RBC_precision": 0.9, "bbox_mAP": score}

    monkeypatch.setattr("mmdet.evaluation.CocoMetric.compute_metrics", compute_metrics)
    options = {
        "train_cfg.val_interval": 1,
        "train_cfg.max_iters": 9,
        "default_hooks.checkpoint.interval": 99,
        "default_hooks.checkpoint.save_best": "auto",
    }

    def run(resume="auto", **more):
        runner = train(tiny(options), resume, **more)
        seen.append(capsys.readouterr().out)
        return runner.iter

    stopped = r"Stopped early at iteration 4 \(best coco/bbox_mAP: iteration 2\)"
    assert [run(None, patience=2), run(patience=2)] == [4, 4]
    assert (tmp_path / "run/best_coco_bbox_mAP_iter_2.pth").is_file()
    assert (tmp_path / "run/last_checkpoint").read_text().endswith("iter_4.pth")
    assert re.search(f"{stopped}.*To train on, give", seen[1])
    assert run(patience=3) == 5
    assert re.search(f"{stopped}.*Training on", seen[2])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"train_cfg.val_begin": 99}, "bbox_mAP, and the config has no evaluation"),
        (
            {"default_hooks.checkpoint.save_best": "coco/mAP"},
            "coco/mAP, and the evaluator gives coco/bbox_mAP, .*save_best=coco/bbox",
        ),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_patience_without_its_metric(tiny, options, message, check):
    with pytest.raises(UserError, match=message):
        apis.train(tiny({"train_cfg.max_iters": 1, **options}), patience=2, check=check)
