"""What a network costs, and what a run has given: tables, curves, feature maps."""

from ghostdet.analysis.complexity import complexity, complexity_table
from ghostdet.analysis.feature_maps import capture, ghost_origins, similar_pairs
from ghostdet.analysis.visualize import visualize

__all__ = [
    "capture",
    "complexity",
    "complexity_table",
    "ghost_origins",
    "similar_pairs",
    "visualize",
]
