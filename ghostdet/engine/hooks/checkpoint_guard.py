"""Refuse checkpoints that do not fit the model."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ghostdet.weights import check_state_dict, get_state_dict


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Raise an error if a checkpoint does not fit the model.

    MMEngine's Runner loads with ``strict=False``: it skips weights that do not fit, and
    leaves a network of another width random with a warning.

    Args:
        allow: Regular expressions, matched at the start of a parameter's name, for keys
            that may be missing, unexpected or mismatched, such as ``['bbox_head']`` to
            start another number of classes from a trained detector.
    """

    priority = "ABOVE_NORMAL"  # before EMAHook, which does not check

    def __init__(self, allow: str | Sequence[str] = ()) -> None:
        self.allow = allow

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the keys; raise ``UserError`` if they do not fit."""
        if "state_dict" not in checkpoint:  # weights alone, unknown to EMAHook
            weights = dict(checkpoint)
            checkpoint.clear()
            checkpoint["state_dict"] = weights
        # The prefix that DataParallel adds; MMEngine removes it, but not for EMAHook.
        weights = checkpoint["state_dict"]
        for name in [name for name in weights if name.startswith("module.")]:
            weights[name.removeprefix("module.")] = weights.pop(name)
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        check_state_dict(
            model, get_state_dict(checkpoint), "the checkpoint", self.allow
        )
