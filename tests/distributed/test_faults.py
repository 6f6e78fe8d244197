"""What goes wrong in a run ends it on all ranks, in time, and it can go on."""

import re
import time

import pytest

LIMIT = 60  # seconds from a fault to the end of the last process


def plant(kind, **more):
    fault = {"type": "Fault", "kind": kind, **more}
    return [f"custom_hooks.0.{key}={value}" for key, value in fault.items()]


@pytest.mark.parametrize(
    "kind, cause",
    [
        pytest.param("fail", "RuntimeError: planted failure", marks=pytest.mark.long),
        pytest.param("kill", r"Signal 9 \(SIGKILL\)", marks=pytest.mark.long),
        pytest.param(
            "kill_worker", "DataLoader worker .* killed", marks=pytest.mark.long
        ),
    ],
)
def test_a_lost_rank_ends_all(start, kind, cause):
    run = start(*plant(kind), ranks=2)
    while not (run.work_dir / "iter_4.pth").is_file():
        assert run.process.poll() is None
        time.sleep(0.1)
    since = time.time()
    run.end(timeout=LIMIT)
    run.wait_until_gone(LIMIT - (time.time() - since))
    assert run.code != 0
    found = re.search(cause, run.output)
    consequence = re.search("rank 0 lost another rank", run.output)
    assert found
    if consequence and kind != "kill":  # of which only torchrun can tell
        assert found.start() < consequence.start()
    assert not (run.work_dir / "iter_6.pth").exists()


@pytest.mark.parametrize("kind", [pytest.param("fail", marks=pytest.mark.long), "kill"])
def test_torchrun_starts_again_and_resumes(run, kind):
    ended = run(*plant(kind), ranks=2, restarts=1)
    assert ended.code == 0, ended.output[-3000:]
    assert "resumed epoch: 0, iter: 4" in ended.output
    assert (ended.work_dir / "iter_8.pth").is_file()
    assert not ended.left()


def test_not_finite_on_one_rank_stops_both(run):
    ended = run(*plant("not_finite"), ranks=2)
    assert ended.code != 0
    assert ended.output.count("error: a loss is not finite at iteration 5") == 1
    where = r"rank 1: loss nan, .*loss_bbox .*; images \d+\n"
    assert re.search(where, ended.output.replace("loss_cls", "loss_bbox"))
    assert f"last valid checkpoint is {ended.work_dir / 'iter_4.pth'}" in ended.output
    assert not (ended.work_dir / "iter_6.pth").exists()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["terminate", "terminate_all"])
def test_sigterm_to_one_rank_ends_all_with_a_checkpoint(run, kind):
    ended = run(*plant(kind), ranks=2)
    assert ended.code != 0 and "SIGTERM at iteration 5: wrote" in ended.output
    assert (ended.work_dir / "last_checkpoint").read_text().endswith("/iter_5.pth")


def test_minutes_end_all_ranks_at_once(run):
    """With code 0: torchrun does not start them again."""
    ended = run(ranks=2, restarts=1, arguments=["--minutes", "0.001"])
    assert ended.code == 0, ended.output[-3000:]
    path = ended.work_dir / "iter_1.pth"
    assert f"--minutes 0.001 ended at iteration 1: wrote {path}" in ended.output
    assert [path] == list(ended.work_dir.glob("*.pth"))
    (config,) = ended.work_dir.glob("*.py")
    assert "minutes=" not in config.read_text()  # of a run that continues from it
