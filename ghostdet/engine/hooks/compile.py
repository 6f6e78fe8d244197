"""Compile the parts of a detector whose shapes do not change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ghostdet.errors import UserError


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile backbone, neck and the convolutions of heads with ``torch.compile``.

    Losses, assigners and NMS run as before: their shapes change with the objects.
    Parameters, checkpoints and results keep their names. ``ghostdet train --compile``
    adds this hook.

    Args:
        parts: Names of the detector's parts. Those that it does not have are skipped.
        backend: See ``torch.compile``.
        mode: See ``torch.compile``.
    """

    def __init__(
        self,
        parts: Sequence[str] = ("backbone", "neck", "rpn_head", "bbox_head", "head"),
        backend: str = "inductor",
        mode: str | None = None,
    ) -> None:
        self.parts, self.options = parts, dict(backend=backend, mode=mode)

    def before_train(self, runner: Runner) -> None:
        """Compile the parts, at their first use; the rehearsal does without.

        Raises:
            UserError: If PyTorch cannot compile on this machine.
        """
        if getattr(runner, "rehearses", False):
            return
        model = runner.model
        while is_model_wrapper(model):
            model = model.module
        device = next(model.parameters()).device
        try:
            torch.compile(torch.sin, **self.options)(torch.zeros(8, device=device))
        except Exception as error:  # the compiler's, Triton's, unknown options
            reason = " ".join(str(error).strip().split("\n")[:2]).strip()
            raise UserError(
                f"torch.compile fails on this machine: {reason}; install a compiler "
                "and Python's headers (apt install g++ python3-dev), on a GPU also "
                "Triton, or leave out --compile"
            ) from error
        for name in self.parts:
            part = getattr(model, name, None)
            if isinstance(part, torch.nn.Module):
                part.compile(**self.options)
