"""Which checkpoint a run resumes from, and what becomes of earlier ones."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from mmengine.logging import print_log

from ghostdet.errors import UserError
from ghostdet.utils.files import atomic_write
from ghostdet.weights.checkpoint import read_checkpoint

CHECKPOINTS = ("epoch_*.pth", "iter_*.pth", "best_*.pth")


MARKER = "torchelastic_run_id"  # of the run that began in a folder


def _kind(path: Path) -> str:
    """``epoch`` or ``iter``."""
    return path.stem.partition("_")[0]


def _newest_first(folder: Path) -> list[Path]:
    """Checkpoints of a folder, by their numbers, or, of both kinds, by their times."""
    found = [path for kind in CHECKPOINTS[:2] for path in folder.glob(kind)]
    found = [path for path in found if path.stem.partition("_")[2].isdigit()]
    if len({_kind(path) for path in found}) > 1:
        return sorted(found, key=lambda path: -path.stat().st_mtime_ns)
    return sorted(found, key=lambda path: -int(path.stem.partition("_")[2]))


def find_latest_valid_checkpoint(work_dir: str | Path) -> str | None:
    """Find the newest checkpoint of a run that can be resumed.

    Args:
        work_dir: Where the run wrote.

    Returns:
        Its path, or None where there is none at all. Those that are damaged are
        passed over, and named in the log.

    Raises:
        UserError: If there are checkpoints and none is whole, ``last_checkpoint``
            names one and there is none, or all were set aside.
    """
    folder = Path(work_dir)
    pointer = folder / "last_checkpoint"
    text = pointer.read_text().strip() if pointer.is_file() else ""
    candidates = _newest_first(folder)
    # It may be in another folder, or the folder may have been moved.
    named = next(
        (
            path
            for path in (Path(text), folder / Path(text).name)
            if text and path.is_file()
        ),
        None,
    )
    if named is not None and (
        named not in candidates or len({_kind(path) for path in candidates}) > 1
    ):
        candidates.insert(0, named)
    damaged = []
    for path in dict.fromkeys(map(str, candidates)):
        try:
            if {"meta", "message_hub"} <= read_checkpoint(path).keys():
                break
            damaged.append(f"{path} (weights alone)")
        except UserError as error:
            damaged.append(f"{path} ({error.text.splitlines()[0]})")
    else:
        if damaged:
            raise UserError(
                f"no checkpoint in {work_dir} can be resumed: {'; '.join(damaged)}. "
                "Start again with another --work-dir"
            )
        if text:
            raise UserError(
                f"{pointer} names {text!r}, and there is no such file; give the path "
                "of another checkpoint to --resume"
            )
        if aside := sorted(folder.glob("earlier_*")):
            raise UserError(
                f"there is nothing to resume in {work_dir}; what was there before is "
                f"in {aside[-1]}: give --resume {aside[-1]}/NAME.pth, or leave "
                "--resume out to start from the beginning"
            )
        return None
    if damaged:
        print_log(
            f"Passed over what is not whole: {'; '.join(damaged)}. Resuming from "
            f"{path}",
            logger="current",
            level=logging.WARNING,
        )
    return path


def begun(work_dir: str | Path) -> bool:
    """Whether torchrun's present run has written checkpoints before, in this folder."""
    marker = Path(work_dir, MARKER)
    return (
        marker.is_file()
        and marker.read_text() == os.environ.get("TORCHELASTIC_RUN_ID")
        and (
            Path(work_dir, "last_checkpoint").is_file()
            or bool(_newest_first(Path(work_dir)))
        )
    )


def archive_old_checkpoints(work_dir: str | Path, resumed: str | None = None) -> None:
    """Move checkpoints out of the way of a run that does not go on from them.

    Otherwise it would overwrite them one by one, and a restart might resume one.

    Args:
        work_dir: Where the run writes.
        resumed: The checkpoint from which it goes on. If it is in ``work_dir``, only
            newer ones are moved; ``last_checkpoint`` names it.
    """
    folder = Path(work_dir)
    found = [path for pattern in CHECKPOINTS for path in folder.glob(pattern)]
    pointer = folder / "last_checkpoint"
    ordered = _newest_first(folder)
    same = [path.resolve() == Path(resumed or "").resolve() for path in ordered]
    if any(same):
        found = ordered[: same.index(True)]
    if found:
        number = 1
        while (aside := folder / f"earlier_{number}").exists():
            number += 1
        aside.mkdir()
        for path in found:
            path.rename(aside / path.name)
        print_log(
            f"{work_dir} held checkpoints of another run, or later ones: they are in "
            f"{aside} now; --resume CHECKPOINT goes on from one of them",
            logger="current",
        )
    if resumed is not None:
        atomic_write(pointer, resumed)
    else:
        pointer.unlink(missing_ok=True)
    atomic_write(folder / MARKER, os.environ.get("TORCHELASTIC_RUN_ID", ""))
