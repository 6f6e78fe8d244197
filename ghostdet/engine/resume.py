"""The checkpoint that a run resumes from, and the folder of a run."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner

from ghostdet.engine.distributed import on_main_process
from ghostdet.engine.loops import ResumableEpochLoop
from ghostdet.errors import UserError
from ghostdet.utils.files import RECORD, atomic_write
from ghostdet.weights.checkpoint import read_checkpoint

MARKER = "torchelastic_run_id"  # names the torchrun that writes in a folder
LOCK = "run.lock"
_PATIENCE = 5  # seconds, enough for the workers of a killed run to end
# Attributes that change as a schedule proceeds; the others come from the config.
_PROGRESS = {
    *("last_step", "_global_step", "_last_value", "verbose"),
    *("best", "num_bad_epochs", "cooldown_counter"),  # ReduceOnPlateau's
}


def _newest_first(folder: Path) -> list[Path]:
    """List checkpoints, the newest first.

    Their numbers tell, since copying a folder may change their times. Times tell if
    some are numbered by epochs and some by iterations.
    """
    found = [*folder.glob("epoch_*.pth"), *folder.glob("iter_*.pth")]
    numbers = {path: path.stem.partition("_")[2] for path in found}
    found = [path for path in found if numbers[path].isdigit()]
    if _of_both_kinds(found):
        return sorted(found, key=lambda path: -path.stat().st_mtime_ns)
    return sorted(found, key=lambda path: -int(numbers[path]))


def _of_both_kinds(checkpoints: list[Path]) -> bool:
    """Tell whether some are numbered by epochs and some by iterations."""
    return len({path.stem.partition("_")[0] for path in checkpoints}) > 1


def last_checkpoint(work_dir: str | Path) -> str | None:
    """Read the path of the checkpoint that was written or resumed last.

    Returns:
        The path, or whatever a damaged file holds; None without such a file.
    """
    file = Path(work_dir, "last_checkpoint")
    return file.read_text(errors="replace").strip() if file.is_file() else None


def find_latest_valid_checkpoint(work_dir: str | Path) -> str | None:
    """Find the newest checkpoint that a run can be resumed from.

    Args:
        work_dir: The run's work directory.

    Returns:
        The path of the checkpoint, or None if the folder has none. Damaged ones are
        skipped, with a warning.

    Raises:
        UserError: If all checkpoints are damaged or archived, or the one that
            ``last_checkpoint`` names is missing.
    """
    folder = Path(work_dir)
    pointer = folder / "last_checkpoint"
    text = last_checkpoint(folder) or ""
    candidates = _newest_first(folder)
    # The hook may write to another folder, and the work directory may have been moved.
    places = Path(text), folder / Path(text).name
    named = [path for path in places if os.path.isfile(path)]  # with any text
    if named and (named[0] not in candidates or _of_both_kinds(candidates)):
        candidates.insert(0, named[0])
    # A killed run may have left the name of a deleted one.
    if not named and os.path.dirname(text) and os.path.isdir(os.path.dirname(text)):
        candidates += _newest_first(Path(text).parent)
    damaged = []
    for path in dict.fromkeys(map(str, candidates)):
        try:
            if {"meta", "message_hub"} <= read_checkpoint(path).keys():
                break
            damaged.append(f"{path} (weights alone)")
        except UserError as error:
            damaged.append(f"{path} ({error.text.splitlines()[0]})")
    else:
        archives = sorted(folder.glob("earlier_*"), key=lambda p: (len(p.name), p.name))
        if damaged:
            raise UserError(
                f"no checkpoint in {work_dir} can be resumed: {', '.join(damaged)}. "
                "Start again with another --work-dir"
            )
        if pointer.is_file():
            raise UserError(
                f"{pointer} names {text[:200]!r}, which does not exist; give the path "
                "of another checkpoint to --resume"
            )
        if archives:
            raise UserError(
                f"{work_dir} has nothing to resume; earlier checkpoints are in "
                f"{archives[-1]}. Give --resume {archives[-1]}/NAME.pth, or leave out "
                "--resume to start from the beginning"
            )
        return None
    if damaged:
        print_log(
            f"Skipped checkpoints that cannot be resumed: {', '.join(damaged)}. "
            f"Resuming from {path}",
            logger="current",
            level=logging.WARNING,
        )
    return path


def restarted(work_dir: str | Path) -> bool:
    """Tell whether torchrun restarted a run that had written checkpoints here."""
    folder = Path(work_dir)
    marker = folder / MARKER
    return (
        int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
        and marker.is_file()
        and marker.read_text() == os.environ.get("TORCHELASTIC_RUN_ID")
        and ((folder / "last_checkpoint").is_file() or bool(_newest_first(folder)))
    )


def archive_old_checkpoints(work_dir: str | Path, resumed: str | None = None) -> None:
    """Move the checkpoints that a run does not continue from into ``earlier_N/``.

    The run would overwrite them one by one, and a restart might resume one of them.

    Args:
        work_dir: The run's work directory.
        resumed: The checkpoint that the run resumes from. If it is in ``work_dir``,
            only newer ones are moved. ``last_checkpoint`` will name it.
    """
    folder = Path(work_dir)
    pointer = folder / "last_checkpoint"
    found = _newest_first(folder)
    same = [path.resolve() == Path(resumed or "").resolve() for path in found]
    if any(same):
        found = found[: same.index(True)]
    elif found := [*found, *folder.glob("best_*.pth")]:
        found = [p for p in found if p.resolve() != Path(resumed or "").resolve()]
        found += folder.glob(RECORD)
    if found:
        number = 1
        while (archive := folder / f"earlier_{number}").exists():
            number += 1
        archive.mkdir()
        for path in found:
            path.rename(archive / path.name)
        print_log(
            f"Moved checkpoints that this run does not continue from to {archive}; "
            "--resume CHECKPOINT continues from one of them",
            logger="current",
        )
    if resumed is not None:
        atomic_write(pointer, resumed)
    else:
        pointer.unlink(missing_ok=True)
    atomic_write(folder / MARKER, os.environ.get("TORCHELASTIC_RUN_ID", ""))


@contextmanager
def locked(work_dir: str | Path) -> Iterator[None]:
    """Keep other runs out of a work directory; say in a line if its disk is full.

    The operating system releases the lock when the process ends, however it does.

    Args:
        work_dir: The run's work directory.

    Raises:
        UserError: If another run has it, or the disk is full.
    """
    lock, owner = FileLock(Path(work_dir, LOCK)), Path(work_dir, LOCK + ".owner")

    def acquire() -> None:
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout:
            name = owner.read_text() if owner.is_file() else "unknown"
            raise UserError(
                f"{work_dir} is in use by another run ({name}); wait until it ends, "
                "or give another folder with --work-dir"
            ) from None
        except (OSError, NotImplementedError) as error:  # a network file system
            print_log(
                f"{work_dir} cannot be locked against other runs ({error})",
                logger="current",
                level=logging.WARNING,
            )
            return
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        owner.write_text(
            f"process {os.getpid()} on {socket.gethostname()}, since {since}"
        )

    try:
        on_main_process(acquire)
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(
            f"the disk is full ({error}); earlier checkpoints are intact. Make room "
            "and continue with --resume"
        ) from error
    finally:
        lock.release()


def use_config_rates(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """Put the config's rates and schedules in place of a resumed checkpoint's.

    MMEngine restores them with the state of the optimiser, and what the config says
    would have no effect. If they differ, or the epochs have another length, rates
    become those that the config's schedules have where the run resumes.

    Args:
        runner: The Runner, with its optimiser and schedules before the first step.
        checkpoint: The checkpoint, which is changed.

    Raises:
        UserError: If the checkpoint was written with another kind of optimiser or of
            schedules.
    """
    if "optimizer" not in checkpoint or not hasattr(runner.optim_wrapper, "optimizer"):
        return  # none was saved, or there are several, as in a GAN
    meta, schedules = checkpoint["meta"], checkpoint.get("param_schedulers") or []
    own_schedules = runner.param_schedulers or []
    kinds = component_kinds(runner)
    if meta.get("kinds", kinds) != kinds or len(schedules) != len(own_schedules):
        path = runner._load_from
        raise UserError(
            f"{path} was trained with {', '.join(meta.get('kinds', ['others']))}, and "
            f"the config has {', '.join(kinds)}. Resume with the config it was trained "
            f"with, or start from its weights: --cfg-options load_from={path}, without "
            "--resume"
        )
    saved, fresh = checkpoint["optimizer"], runner.optim_wrapper.state_dict()
    sizes, own_sizes = (
        [len(group["params"]) for group in state["param_groups"]]
        for state in (saved, fresh)
    )
    if sizes != own_sizes:
        raise UserError(
            f"{runner._load_from} has {len(sizes)} groups of {sum(sizes)} parameters, "
            f"and the config makes {len(own_sizes)} of {sum(own_sizes)}; resume with "
            "the paramwise_cfg and frozen stages it was trained with"
        )
    groups = list(zip(_groups(saved), _groups(fresh)))
    pairs = [("optimizer", old, new) for old, new in groups]
    pairs += [
        (f"param_scheduler.{number}", old, own.state_dict())
        for number, (old, own) in enumerate(zip(schedules, own_schedules))
    ]
    changes: dict[str, None] = {}
    for place, old, new in pairs:
        scheduled = {key.removeprefix("initial_") for key in new if "initial_" in key}
        kept = {"params", *_PROGRESS, *scheduled}
        if "momentum" in scheduled:
            kept.add("betas")
        for key in sorted((new.keys() & old.keys()) - kept):
            if old[key] != new[key]:
                changes[f"{place}.{key} {old[key]} -> {new[key]}"] = None
    length = meta.get("epoch_length")
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    now = len(runner.train_loop.dataloader)
    # A loop that is not ours restarts the epoch, too.
    within = meta["iter"] != meta["epoch"] * now
    exact = isinstance(runner.train_loop, ResumableEpochLoop) or not within
    other_length = by_epoch and not (length in (None, now) and exact)
    if not changes and not other_length:
        return
    plateau = any("best" in old for old in schedules)  # follows the metrics
    # The steps of all schedules by iteration, since they build on each other's rates.
    steps: list[tuple] = []
    loader = runner.train_loop.dataloader
    for number, (old, own) in enumerate(zip(schedules, own_schedules)):
        count, each = old["_global_step"], len(loader) if own.by_epoch else 1
        if other_length and not own.by_epoch:
            count = meta["epoch"] * len(loader)
        steps += [(i * each, own.by_epoch, number) for i in range(1, count + 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch expects steps of the optimiser
        for *_, number in [] if plateau else sorted(steps):
            own_schedules[number].step()
    for old, new in zip(_groups(saved), _groups(runner.optim_wrapper.state_dict())):
        kept = {"params", "lr"} if plateau else {"params"}
        old.update({key: value for key, value in new.items() if key not in kept})
    for old, own in zip(schedules, own_schedules):
        kept = _PROGRESS if plateau else set()
        old.update({k: v for k, v in own.state_dict().items() if k not in kept})
    if changes:
        text = f"Resumed with values of the config: {', '.join(changes)}"
        print_log(text, logger="current")


def component_kinds(runner: Runner) -> list[str]:
    """List the classes of a run's optimiser and schedules."""
    optimizer = getattr(runner.optim_wrapper, "optimizer", runner.optim_wrapper)
    parts = optimizer, *(runner.param_schedulers or [])
    return [type(part).__name__ for part in parts]


def _groups(optimizer: dict[str, Any]) -> list[dict[str, Any]]:
    """List groups of parameters, then the one whose rates MMEngine logs."""
    base = filter(None, [optimizer.get("base_param_settings")])
    return [*optimizer["param_groups"], *base]
