"""Where weights come from, how they are checked, and how they are widened."""

from .fitting import check_state_dict, weights_of
from .formats import Weights, read_weights
from .pretrained import CheckedPretrained, GhostNetPretrained, load_pretrained
from .reading import drop_configs, read_source
from .source import fetch
from .widen import widen_state_dict

__all__ = [
    "CheckedPretrained",
    "GhostNetPretrained",
    "Weights",
    "check_state_dict",
    "drop_configs",
    "fetch",
    "load_pretrained",
    "read_source",
    "read_weights",
    "weights_of",
    "widen_state_dict",
]
