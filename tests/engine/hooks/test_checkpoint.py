"""Checkpoints are whole or not there, and the newest whole one is found."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ghostdet.apis import train
from ghostdet.engine.hooks import checkpoint as saving
from ghostdet.engine.resume import archive_old_checkpoints, find_latest_valid_checkpoint
from ghostdet.errors import UserError
from ghostdet.utils.files import atomic_write

NO_VALIDATION = {"train_cfg.val_interval": 100}


@pytest.mark.parametrize("moment", ["open", "fsync", "replace", "done"])
def test_killed_while_writing(tmp_path, moment):
    """The old content before the new name is given, the new content after it."""
    path = tmp_path / "file"
    atomic_write(path, b"old")
    child = os.fork()
    if child == 0:
        owner = {"open": saving, "done": saving.os}.get(moment, saving.os)
        name = {"done": "close"}.get(moment, moment)
        if moment == "open":
            saving.open = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
        else:
            setattr(owner, name, lambda *a: os.kill(os.getpid(), signal.SIGKILL))
        atomic_write(path, b"new" * 1000)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert path.read_bytes() == (b"new" * 1000 if moment == "done" else b"old")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic_write(path, b"old")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2))
    with pytest.raises(UserError, match="it needs 0 MB, and the disk has 0 MB left"):
        atomic_write(path, b"new")
    monkeypatch.undo()
    if Path("/dev/full").exists():
        path.with_name("file.partial").symlink_to("/dev/full")  # space that goes
        with pytest.raises(UserError, match="No space left on device"):
            atomic_write(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_a_full_disk_in_training(tiny, monkeypatch, tmp_path):
    written = tmp_path / "run/last_checkpoint"
    monkeypatch.setattr(
        "shutil.disk_usage",
        lambda _: SimpleNamespace(free=0 if written.exists() else 10**12),
    )
    with pytest.raises(UserError, match="iter_4.pth cannot be written.*--resume"):
        train(tiny(NO_VALIDATION))
    names = {path.name for path in (tmp_path / "run").glob("*") if path.is_file()}
    assert {"iter_2.pth", "last_checkpoint"} <= names and "iter_4.pth" not in names
    assert find_latest_valid_checkpoint(tmp_path / "run").endswith("iter_2.pth")
    monkeypatch.undo()
    assert train(tiny(NO_VALIDATION), resume="auto").iter == 4


def test_the_oldest_is_deleted_after_the_new_one_is_there(tiny, monkeypatch):
    seen = []
    write = saving.atomic_write

    def note(path, content):
        write(path, content)
        if path.name != saving.MARKER:
            seen.append(sorted(p.stem for p in path.parent.glob("iter_*.pth")))

    monkeypatch.setattr(saving, "atomic_write", note)
    train(tiny({**NO_VALIDATION, "default_hooks.checkpoint.max_keep_ckpts": 1}))
    assert seen == [["iter_2"]] * 2 + [["iter_2", "iter_4"]] * 2


def test_the_best_is_deleted_after_a_better_one_is_there(tiny, tmp_path, monkeypatch):
    seen = []
    write = saving.atomic_write

    def note(path, content):
        write(path, content)
        seen.append(sorted(p.name[-5] for p in path.parent.glob("best_*")))

    monkeypatch.setattr(saving, "atomic_write", note)
    scores = iter([0.3, 0.2, 0.4])
    monkeypatch.setattr(
        "mmdet.evaluation.CocoMetric.compute_metrics",
        lambda *_: {"bbox_mAP": next(scores)},
    )
    options = {"train_cfg.val_interval": 1, "train_cfg.max_iters": 3}
    options["default_hooks.checkpoint.save_best"] = "coco/bbox_mAP"
    train(tiny(options))
    best = [path.name for path in (tmp_path / "run").glob("best_*")]
    assert best == ["best_coco_bbox_mAP_iter_3.pth"] and ["1", "3"] in seen


def damage(path, how):
    content = path.read_bytes()
    if how == "zeros":  # what a file system may leave of a file that was not flushed
        path.write_bytes(bytes(len(content)))
    else:
        path.write_bytes(content[: {"empty": 0, "cut": len(content) // 2}[how]])


@pytest.mark.parametrize("how", ["empty", "cut", "zeros"])
@pytest.mark.parametrize("pointer", ["iter_4.pth", "", "iter_2.pth", None])
def test_falls_back_to_the_newest_whole(tiny, trained, tmp_path, how, pointer, capfd):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("iter_2.pth", "iter_4.pth"):
        (run / name).write_bytes((trained / name).read_bytes())
    if pointer is not None:
        (run / "last_checkpoint").write_text(pointer and str(run / pointer))
    assert find_latest_valid_checkpoint(run) == str(run / "iter_4.pth")
    damage(run / "iter_4.pth", how)
    assert find_latest_valid_checkpoint(run) == str(run / "iter_2.pth")
    damage(run / "iter_2.pth", how)
    with pytest.raises(UserError, match="no checkpoint in .* can be resumed: .*iter_2"):
        find_latest_valid_checkpoint(run)


def test_a_new_run_keeps_what_an_earlier_one_wrote(tiny, tmp_path):
    options = {**NO_VALIDATION, "train_cfg.max_iters": 2}
    train(tiny(options))
    first = (tmp_path / "run/iter_2.pth").read_bytes()
    train(tiny({**options, "randomness.seed": 1}))
    assert (tmp_path / "run/earlier_1/iter_2.pth").read_bytes() == first
    assert (tmp_path / "run/iter_2.pth").read_bytes() != first


def touch(folder, *names):
    """Files whose times are the other way round, as a copy may leave them."""
    for age, name in enumerate(names):
        (folder / name).write_text("")
        os.utime(folder / name, (1000 - age, 1000 - age))


def test_numbers_count_and_not_times(tmp_path, monkeypatch):
    touch(tmp_path, *(f"epoch_{i}.pth" for i in range(1, 13)))
    monkeypatch.setattr(
        saving, "read_checkpoint", lambda _: {"meta": {}, "message_hub": {}}
    )
    (tmp_path / "last_checkpoint").write_text("elsewhere/epoch_12.pth")
    assert find_latest_valid_checkpoint(tmp_path).endswith("epoch_12.pth")
    archive_old_checkpoints(tmp_path, str(tmp_path / "epoch_9.pth"))
    aside = {path.name for path in (tmp_path / "earlier_1").iterdir()}
    assert aside == {f"epoch_{i}.pth" for i in (10, 11, 12)}
    archive_old_checkpoints(tmp_path, "of/another/run/epoch_3.pth")
    assert len(list((tmp_path / "earlier_2").iterdir())) == 9
    (tmp_path / "last_checkpoint").unlink()
    with pytest.raises(UserError, match="nothing to resume in .*earlier_2/NAME.pth"):
        find_latest_valid_checkpoint(tmp_path)


def test_a_restart_resumes_its_own_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "first")
    archive_old_checkpoints(tmp_path)
    assert not saving.begun(tmp_path)  # it has written nothing yet
    touch(tmp_path, "epoch_1.pth")
    assert saving.begun(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "second")
    assert not saving.begun(tmp_path)


def test_what_is_newer_than_the_resumed_one_is_set_aside(tmp_path):
    for step in (2, 4, 6):
        (tmp_path / f"iter_{step}.pth").write_text("")
        os.utime(tmp_path / f"iter_{step}.pth", (step, step))
    archive_old_checkpoints(tmp_path, str(tmp_path / "iter_4.pth"))
    left = {path.name for path in tmp_path.glob("iter_*")}
    assert left == {"iter_2.pth", "iter_4.pth"}
    assert (tmp_path / "earlier_1/iter_6.pth").exists()
    assert (tmp_path / "last_checkpoint").read_text().endswith("iter_4.pth")


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


def test_another_batch_upon_resume(tiny, capfd):
    cosine = {"type": "CosineAnnealingLR", "T_max": 100, "eta_min": 1e-4}
    options = {**NO_VALIDATION, "param_scheduler": [{**cosine, "by_epoch": False}]}
    options["auto_scale_lr.base_batch_size"] = 2
    options["train_cfg.max_iters"] = 2
    lr = tiny(options).optim_wrapper.optimizer.lr
    first = train(tiny(options))
    assert first.optim_wrapper.get_lr()["lr"][0] == pytest.approx(lr, rel=1e-2)
    options.update({"train_dataloader.batch_size": 4, "train_cfg.max_iters": 3})
    second = train(tiny(options), resume="auto")
    assert second.optim_wrapper.get_lr()["lr"][0] == pytest.approx(2 * lr, rel=1e-2)
    assert second.param_schedulers[0].eta_min == pytest.approx(2e-4)
    assert "learning rates x 4/2" in capfd.readouterr().out
