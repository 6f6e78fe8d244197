"""The paper's two pictures: similar feature maps, and where ghost maps come from."""

from .command import visualize
from .features import capture, ghost_origins, similar_pairs

__all__ = ["capture", "ghost_origins", "similar_pairs", "visualize"]
