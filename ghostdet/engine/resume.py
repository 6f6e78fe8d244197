"""The checkpoint that a run resumes from, and earlier checkpoints in its folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from mmengine.logging import print_log

from ghostdet.errors import UserError
from ghostdet.utils.files import atomic_write
from ghostdet.weights.checkpoint import read_checkpoint

RECORD = "run.json"
MARKER = "torchelastic_run_id"  # names the torchrun that writes in a folder


def _newest_first(folder: Path) -> list[Path]:
    """List checkpoints by their numbers, or by their times if of epochs and iterations.

    Times alone do not do: they may change when a folder is copied.
    """
    found = [
        path for kind in ("epoch", "iter") for path in folder.glob(f"{kind}_*.pth")
    ]
    numbers = {path: path.stem.partition("_")[2] for path in found}
    found = [path for path in found if numbers[path].isdigit()]
    if _of_both_kinds(found):
        return sorted(found, key=lambda path: -path.stat().st_mtime_ns)
    return sorted(found, key=lambda path: -int(numbers[path]))


def _of_both_kinds(checkpoints: list[Path]) -> bool:
    """Tell whether some are numbered by epochs and some by iterations."""
    return len({path.stem.partition("_")[0] for path in checkpoints}) > 1


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
    text = pointer.read_text().strip() if pointer.is_file() else ""
    candidates = _newest_first(folder)
    # The hook may write to another folder, and the work directory may have been moved.
    named = [path for path in (Path(text), folder / Path(text).name) if path.is_file()]
    if named and (named[0] not in candidates or _of_both_kinds(candidates)):
        candidates.insert(0, named[0])
    if text and not named:  # a run that was killed may have named a deleted one
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
        archives = sorted(
            folder.glob("earlier_*"), key=lambda path: (len(path.name), path.name)
        )
        if damaged:
            raise UserError(
                f"no checkpoint in {work_dir} can be resumed: {', '.join(damaged)}. "
                "Start again with another --work-dir"
            )
        if text:
            raise UserError(
                f"{pointer} names {text!r}, which does not exist; give the path of "
                "another checkpoint to --resume"
            )
        if pointer.is_file():
            raise UserError(
                f"{pointer} is empty; give the path of a checkpoint to --resume"
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


def begun(work_dir: str | Path) -> bool:
    """Tell whether the present torchrun has written checkpoints in this folder."""
    folder = Path(work_dir)
    marker = folder / MARKER
    return (
        marker.is_file()
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
