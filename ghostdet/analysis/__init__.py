"""Count networks, tabulate and plot training runs, and draw feature maps."""

from ghostdet.analysis.feature_maps import capture, ghost_origins, similar_pairs
from ghostdet.analysis.macs import complexity, complexity_table
from ghostdet.analysis.visualization import visualize

__all__ = [
    "capture",
    "complexity",
    "complexity_table",
    "ghost_origins",
    "similar_pairs",
    "visualize",
]
