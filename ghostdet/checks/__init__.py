"""What is found before a run."""

from ghostdet.checks.datasets import check_dataset, check_evaluation
from ghostdet.checks.preflight import preflight

__all__ = ["check_dataset", "check_evaluation", "preflight"]
