"""Checks before a run."""

from ghostdet.checks.datasets import check_dataset
from ghostdet.checks.run import check_run

__all__ = ["check_dataset", "check_run"]
