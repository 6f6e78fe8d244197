"""Taking a trained detector away."""

from .deploy import deploy

__all__ = ["deploy"]
