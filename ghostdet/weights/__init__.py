"""Fetch, read, check, widen and publish weights."""

from ghostdet.weights.checkpoint import drop_configs, read_checkpoint, read_source
from ghostdet.weights.formats import Weights, read_weights
from ghostdet.weights.pretrained import (
    CheckedPretrained,
    GhostNetPretrained,
    load_pretrained,
)
from ghostdet.weights.source import fetch
from ghostdet.weights.state_dict import check_state_dict, get_state_dict
from ghostdet.weights.widen import widen_state_dict

__all__ = [
    "CheckedPretrained",
    "GhostNetPretrained",
    "Weights",
    "check_state_dict",
    "drop_configs",
    "fetch",
    "load_pretrained",
    "read_checkpoint",
    "read_source",
    "read_weights",
    "get_state_dict",
    "widen_state_dict",
]
