"""How fast things are, beside what a user would pick instead."""

from .page import merge, render
from .suites import SUITES, benchmark

__all__ = ["SUITES", "benchmark", "merge", "render"]
