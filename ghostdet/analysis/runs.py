"""Read the record of a training run from its work directory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghostdet.errors import UserError
from ghostdet.utils.files import RECORD


@dataclass(frozen=True)
class Run:
    """A training run, from its first start to its last.

    Its fields are keys of ``run.json``; see
    :class:`~ghostdet.engine.hooks.run_record.RunRecordHook`.
    """

    work_dir: Path
    name: str
    config: dict[str, Any]
    starts: list[dict[str, Any]]
    losses: list[dict[str, float]]
    evaluations: list[dict[str, float]]
    trained: int
    unit: str
    length: int
    epoch_length: int | None
    stopped: bool = False

    @property
    def iterations(self) -> int:
        """Number of iterations in the config."""
        return self.length * ((self.epoch_length or 1) if self.unit == "epoch" else 1)

    @property
    def finished(self) -> bool:
        """True if the run has trained to its end and was evaluated there."""
        last = self.evaluations[-1]["iter"] if self.evaluations else 0
        end = self.trained if self.stopped else self.iterations
        return min(self.trained, last) >= end


def read_run(work_dir: str | Path) -> Run:
    """Read ``run.json``, which ``tools/train.py`` writes to its work directory.

    Raises:
        UserError: If the file is missing, or it is not such a record.
    """
    path = Path(work_dir, RECORD)
    try:
        record = json.loads(path.read_text())
        return Run(
            Path(work_dir),
            **{k: v for k, v in record.items() if k in Run.__annotations__},
        )
    except FileNotFoundError as error:
        raise UserError(
            f"{work_dir} has no {RECORD}, which tools/train.py writes; give the work "
            "directory of a training run"
        ) from error
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not the record of a training run ({error}); give a work "
            "directory as tools/train.py left it"
        ) from error
