"""A run stops at the same iteration on all ranks, without loss."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from unchecked import train

from ghostdet.engine.hooks import GracefulStopHook, graceful_stop
from ghostdet.errors import UserError


@pytest.fixture
def hook():
    hook = GracefulStopHook()
    previous = signal.getsignal(signal.SIGTERM)
    with graceful_stop.keep_sigterm():
        hook.before_train(None)
        yield hook
    assert signal.getsignal(signal.SIGTERM) is previous


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """A stand-in for a Runner, which notes that a checkpoint was written."""
    monkeypatch.setattr(graceful_stop, "save_now", lambda runner: "iter_8.pth")
    wrapper = SimpleNamespace(should_update=lambda: True)
    return SimpleNamespace(
        iter=7, optim_wrapper=wrapper, work_dir=tmp_path, _train_loop=object()
    )


def finish(hook, runner, loss=1.0, batch=None):
    outputs = {"loss": torch.tensor(loss), "loss_cls": 0.5, "acc": float("nan")}
    hook.after_train_iter(runner, 0, batch, outputs)


def test_sigterm(hook, runner, caplog):
    finish(hook, runner)  # nothing happened
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # by torchrun as well
    runner.optim_wrapper.should_update = lambda: False
    finish(hook, runner)  # gradients are being accumulated
    runner.optim_wrapper.should_update = lambda: True
    with pytest.raises(SystemExit) as caught:
        finish(hook, runner)
    assert caught.value.code == 143


def test_sigterm_in_an_evaluation(hook, runner):
    hook.after_val_iter(runner)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        hook.after_val_iter(runner)
    assert caught.value.code == 143
    runner._train_loop = None  # an evaluation alone
    hook.after_val_iter(runner)


def test_minutes(hook, runner, monkeypatch):
    finish(hook, runner)  # no limit
    hook.minutes = 0
    with monkeypatch.context() as patch:
        patch.setattr(graceful_stop, "is_main_process", lambda: False)
        finish(hook, runner)  # rank 0 decides
    with pytest.raises(SystemExit) as caught:
        finish(hook, runner)
    assert caught.value.code == 0


def detection_batch():
    metas = [dict(img_id=17), dict(img_path="b.jpg")]
    return dict(data_samples=[SimpleNamespace(metainfo=meta) for meta in metas])


@pytest.mark.parametrize(
    "batch, images",
    [
        (detection_batch(), "17, b.jpg"),
        (dict(data_samples=dict(img_path=["a.jpg", "b.jpg"])), "a.jpg, b.jpg"),
        (None, ""),
    ],
)
def test_a_loss_that_is_not_finite(hook, runner, batch, images):
    (runner.work_dir / "last_checkpoint").write_text("run/iter_6.pth")
    message = (
        r"not finite at iteration 8:\n  rank 0: loss nan, loss_cls 0.5; "
        rf"images {images}"
        r"\nThe last valid checkpoint is run/iter_6.pth"
    )
    with pytest.raises(UserError, match=message):
        finish(hook, runner, float("nan"), batch)


@HOOKS.register_module()
class Terminate(Hook):
    """Send this process SIGTERM before its fifth iteration."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 4:
            os.kill(os.getpid(), signal.SIGTERM)


def test_resumed_after_sigterm(tiny, tmp_path):
    """At iteration 5, while gradients are accumulated."""
    options = {
        "train_cfg.max_iters": 8,
        "train_cfg.val_interval": 99,
        "optim_wrapper.accumulative_counts": 2,
        "default_hooks.checkpoint.interval": 4,
        "default_hooks.checkpoint.max_keep_ckpts": 1,
    }

    def losses(runner):
        return runner.message_hub.get_scalar("train/loss").data[0]

    expected = losses(train(tiny(options, work_dir=tmp_path / "uninterrupted")))
    cfg = tiny(options)
    cfg.custom_hooks = [dict(type="Terminate")]
    with pytest.raises(SystemExit) as caught:
        train(cfg)
    assert caught.value.code == 143
    last = (tmp_path / "run/last_checkpoint").read_text()
    assert last == str(tmp_path / "run/iter_6.pth")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert losses(train(tiny(options), "auto")) == pytest.approx(expected, rel=1e-5)
    left = [path.name for path in (tmp_path / "run").glob("*.pth")]
    assert left == ["iter_8.pth"]
