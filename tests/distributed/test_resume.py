"""A run that is killed at any moment goes on as if it had not been."""

import random
import signal
import time

import pytest

EPOCHS = [
    "train_cfg._delete_=True",
    "train_cfg.type=EpochBasedTrainLoop",
    "train_cfg.max_epochs=3",
    "train_cfg.val_interval=1",
    "train_dataloader.dataset.datasets.0.indices=4",
    "train_dataloader.dataset.datasets.1.indices=4",
    "train_dataloader.sampler.type=DefaultSampler",
    "default_hooks.checkpoint.by_epoch=True",
    "default_hooks.checkpoint.interval=1",
    "custom_hooks.0.type=Progress",
    "val_dataloader.dataset.indices=4",
    "model.test_cfg.score_thr=0.0",
]


@pytest.mark.parametrize("checkpoint", ["epoch_1.pth", "epoch_2.pth"])
@pytest.mark.long
def test_resumed_at_an_epoch(run, checkpoint):
    whole = run(*EPOCHS, name="whole")
    assert whole.code == 0, whole.output[-3000:]
    path = whole.work_dir / checkpoint
    resumed = run(*EPOCHS, name="resumed", arguments=["--resume", path])
    assert resumed.code == 0, resumed.output[-3000:]
    expected, again = dict(whole.progress), dict(resumed.progress)
    assert min(again) == 8 * int(checkpoint[6]) + 1 and max(again) == max(expected)
    assert again == pytest.approx({i: expected[i] for i in again}, abs=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("kills", [30])
def test_killed_at_random_moments(start, kills):
    interval = 2
    options = [
        "train_cfg.max_iters=10000",
        f"default_hooks.checkpoint.interval={interval}",
        "default_hooks.checkpoint.max_keep_ckpts=2",
        "custom_hooks.0.type=Progress",
    ]
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    done, read, losses = 0, 0, {}
    for _ in range(kills + 1):
        run = start(*options, arguments=["--resume"])
        file = run.work_dir / "progress"
        size = file.stat().st_size if file.is_file() else 0
        while not file.is_file() or file.stat().st_size == size:
            assert run.process.poll() is None, run.end().output[-3000:]
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 2))
        run.process.send_signal(signal.SIGKILL)
        run.end()
        run.wait_until_gone(30)
        new, read = run.progress[read:], len(run.progress)
        assert new[0][0] > done - interval  # no more than an interval was lost
        done = new[-1][0]
        for step, loss in new:  # and what was done again came out the same
            assert losses.setdefault(step, loss) == pytest.approx(loss, abs=1e-6)
