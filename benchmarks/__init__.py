"""How fast things are, beside what one would use instead: ``python -m benchmarks``."""

from .page import merge, render
from .suites import SUITES, benchmark

__all__ = ["SUITES", "benchmark", "merge", "render"]
