"""The newest valid checkpoint is found, and old ones are archived."""

import os

import pytest
from unchecked import train

from ghostdet.engine import resume
from ghostdet.engine.resume import (
    archive_old_checkpoints,
    find_latest_valid_checkpoint,
    locked,
    restarted,
)
from ghostdet.errors import UserError

STATE = {"meta": {}, "message_hub": {}}


def touch(folder, *names):
    """Make files with descending times, as a copy may leave them."""
    for age, name in enumerate(names):
        (folder / name).write_text("")
        os.utime(folder / name, (1000 - age, 1000 - age))


def names(folder):
    return {path.name for path in folder.glob("*.*")}


def damage(path, how):
    content = path.read_bytes()
    if how == "zeros":  # a file system may leave these if a file was not flushed
        path.write_bytes(bytes(len(content)))
    else:
        path.write_bytes(content[: {"empty": 0, "cut": len(content) // 2}[how]])


@pytest.mark.parametrize("how", ["empty", "cut", "zeros"])
@pytest.mark.parametrize("pointer", ["iter_4.pth", "", "iter_2.pth", None])
def test_falls_back_to_the_newest_valid(trained, tmp_path, how, pointer, caplog):
    for name in ("iter_2.pth", "iter_4.pth"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    if pointer is not None:
        (tmp_path / "last_checkpoint").write_text(pointer and str(tmp_path / pointer))
    assert find_latest_valid_checkpoint(tmp_path) == str(tmp_path / "iter_4.pth")
    damage(tmp_path / "iter_4.pth", how)
    assert find_latest_valid_checkpoint(tmp_path) == str(tmp_path / "iter_2.pth")
    damage(tmp_path / "iter_2.pth", how)
    with pytest.raises(UserError, match="no checkpoint in .* can be resumed: .*iter_2"):
        find_latest_valid_checkpoint(tmp_path)


def test_numbers_count_before_times(tmp_path, monkeypatch):
    touch(tmp_path, *(f"epoch_{i}.pth" for i in range(1, 13)))
    monkeypatch.setattr(resume, "read_checkpoint", lambda _: STATE)
    (tmp_path / "last_checkpoint").write_text("elsewhere/epoch_12.pth")
    assert find_latest_valid_checkpoint(tmp_path).endswith("epoch_12.pth")
    archive_old_checkpoints(tmp_path, str(tmp_path / "epoch_9.pth"))
    assert names(tmp_path / "earlier_1") == {f"epoch_{i}.pth" for i in (10, 11, 12)}
    assert (tmp_path / "last_checkpoint").read_text().endswith("epoch_9.pth")
    (tmp_path / "run.json").write_text("{}")
    archive_old_checkpoints(tmp_path, "of/another/run/epoch_3.pth")
    archived = {f"epoch_{i}.pth" for i in range(1, 10)}
    assert names(tmp_path / "earlier_2") == {"run.json", *archived}
    (tmp_path / "last_checkpoint").unlink()
    with pytest.raises(UserError, match="nothing to resume; .*earlier_2/NAME.pth"):
        find_latest_valid_checkpoint(tmp_path)


def test_a_checkpoint_written_on_sigterm(tmp_path, monkeypatch):
    """It is numbered by iterations among others numbered by epochs."""
    monkeypatch.setattr(resume, "read_checkpoint", lambda _: STATE)
    touch(tmp_path, "iter_70.pth", "epoch_2.pth", "epoch_1.pth")
    assert find_latest_valid_checkpoint(tmp_path).endswith("iter_70.pth")


def test_last_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "read_checkpoint", lambda _: STATE)
    assert find_latest_valid_checkpoint(tmp_path) is None
    (tmp_path / "last_checkpoint").write_text("/moved/from/iter_4.pth")
    with pytest.raises(UserError, match="names '/moved/from/iter_4.pth', which does"):
        find_latest_valid_checkpoint(tmp_path)
    touch(tmp_path, "iter_4.pth")
    assert find_latest_valid_checkpoint(tmp_path) == str(tmp_path / "iter_4.pth")
    (tmp_path / "other").mkdir()
    touch(tmp_path / "other", "iter_6.pth")
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "other/iter_6.pth"))
    assert find_latest_valid_checkpoint(tmp_path).endswith("other/iter_6.pth")
    # A run was killed after it had deleted the checkpoint that this names.
    (tmp_path / "iter_4.pth").unlink()
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "other/iter_5.pth"))
    assert find_latest_valid_checkpoint(tmp_path).endswith("other/iter_6.pth")
    (tmp_path / "last_checkpoint").write_text("")
    with pytest.raises(UserError, match="last_checkpoint names '', which does"):
        find_latest_valid_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"\xff\x00\x80", b"a" * 5000, b"a/b\n" * 9])
def test_damaged_last_checkpoint(tmp_path, monkeypatch, content):
    monkeypatch.setattr(resume, "read_checkpoint", lambda _: STATE)
    (tmp_path / "last_checkpoint").write_bytes(content)
    with pytest.raises(UserError, match="last_checkpoint names .*which does not exist"):
        find_latest_valid_checkpoint(tmp_path)
    touch(tmp_path, "epoch_1.pth")
    assert find_latest_valid_checkpoint(tmp_path) == str(tmp_path / "epoch_1.pth")


def test_the_best_checkpoint_is_resumed(tmp_path):
    touch(tmp_path, "epoch_6.pth", "epoch_5.pth", "best_coco_bbox_mAP_epoch_5.pth")
    best = tmp_path / "best_coco_bbox_mAP_epoch_5.pth"
    archive_old_checkpoints(tmp_path, str(best))
    assert names(tmp_path / "earlier_1") == {"epoch_5.pth", "epoch_6.pth"}
    assert best.is_file() and (tmp_path / "last_checkpoint").read_text() == str(best)


def test_a_restart_resumes_its_own_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "first")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    archive_old_checkpoints(tmp_path)
    assert not restarted(tmp_path)  # it has written nothing yet
    touch(tmp_path, "epoch_1.pth")
    assert restarted(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not restarted(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "second")
    assert not restarted(tmp_path)


def test_one_run_in_a_work_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "_PATIENCE", 0.1)
    with locked(tmp_path):
        first = f"process {os.getpid()} on .*, since 2"
        for _ in range(2):
            with pytest.raises(UserError, match=f"another run .{first}.*--work-dir"):
                with locked(tmp_path):
                    pass
    with locked(tmp_path):
        pass


WARMUP = dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=2)
COSINE = dict(type="CosineAnnealingLR", by_epoch=False, begin=2, end=9, T_max=8)
SHORT = {"train_cfg.val_interval": 100, "param_scheduler": [WARMUP, COSINE]}


@pytest.mark.parametrize(
    "options",
    [
        {"optim_wrapper.optimizer.lr": 7e-4},
        {"optim_wrapper.optimizer.weight_decay": 0.3},
        {"param_scheduler": [WARMUP, {**COSINE, "T_max": 20, "eta_min": 1e-5}]},
        {"param_scheduler": [{**WARMUP, "end": 4}, {**COSINE, "begin": 1}]},
        {
            "param_scheduler": [
                {**WARMUP, "begin": 1, "end": 6},
                {**COSINE, "begin": 0, "eta_min": 1e-3},
            ]
        },
        {"train_dataloader.batch_size": 4},
    ],
)
def test_resumed_with_other_rates(tiny, tmp_path, options, caplog):
    """Rates are as in a run that had them from its start."""
    train(tiny({**SHORT, "train_cfg.max_iters": 2}))
    resumed = train(tiny(SHORT | options), resume="auto")
    expected = train(tiny(SHORT | options, work_dir=tmp_path / "other"))
    for name in ("lr", "initial_lr", "weight_decay"):
        rates, others = (
            [group[name] for group in run.optim_wrapper.param_groups]
            for run in (resumed, expected)
        )
        assert rates == pytest.approx(others)


@pytest.mark.parametrize("warmup", [2, 100])
def test_resumed_with_another_epoch_length(tiny, tmp_path, warmup):
    """Rates are as in a run that had such epochs from its start."""

    def run(epochs, batch_size, resume=None, folder="run"):
        options = {
            "train_dataloader.batch_size": batch_size,
            "train_dataloader.sampler.type": "DefaultSampler",
            "train_dataloader.dataset.datasets.0.indices": 4,
            "train_dataloader.dataset.datasets.1.indices": 4,
            "default_hooks.checkpoint.by_epoch": True,
        }
        cfg = tiny(options, work_dir=tmp_path / folder)
        cfg.train_cfg = dict(
            type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=9
        )
        cosine = dict(type="CosineAnnealingLR", T_max=4, end=4, by_epoch=True)
        cosine["convert_to_iter_based"] = True
        cfg.param_scheduler = [{**WARMUP, "end": warmup}, cosine]
        return train(cfg, resume)

    run(2, 2)
    resumed, expected = run(3, 4, "auto"), run(3, 4, folder="other")
    assert resumed.iter == expected.iter == 6
    rates = (runner.optim_wrapper.get_lr()["base_lr"] for runner in (resumed, expected))
    assert next(rates) == pytest.approx(next(rates))


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"optim_wrapper.optimizer.type": "SGD"},
            "trained with AdamW, .* the config has SGD",
        ),
        ({"optim_wrapper.paramwise_cfg": None}, "groups of .* config makes 1 of"),
        (
            {"param_scheduler": [WARMUP]},
            "CosineAnnealingLR, and the config has AdamW, LinearLR.*load_from",
        ),
        (
            {"param_scheduler": [COSINE, WARMUP]},
            "trained with AdamW, LinearLR, .*load_from=.*iter_2.pth",
        ),
    ],
)
def test_resumed_with_another_kind(tiny, options, message):
    train(tiny({**SHORT, "train_cfg.max_iters": 2}))
    with pytest.raises(UserError, match=message):
        train(tiny(SHORT | options), resume="auto")
