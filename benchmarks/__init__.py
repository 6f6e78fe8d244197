"""Compare speed with what one would use instead: ``python -m benchmarks``."""

from .page import render
from .suites import SUITES, benchmark

__all__ = ["SUITES", "benchmark", "render"]
