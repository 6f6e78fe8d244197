"""Whether weights fit a model: wholly, or it is said what does not."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ghostdet.errors import UserError


def get_state_dict(checkpoint: Any) -> dict[str, Any]:
    """The state dict of a checkpoint, or of a file that holds nothing else.

    Args:
        checkpoint: What :func:`read_checkpoint` returned.

    Returns:
        Tensors by name, without the ``module.`` that ``DataParallel`` puts before each.

    Raises:
        UserError: If it is no dictionary.
    """
    if not isinstance(checkpoint, Mapping):
        raise UserError(
            f"the file holds no state dict but a {type(checkpoint).__name__}; give "
            "what torch.save(model.state_dict()) wrote"
        )
    state_dict = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state_dict, Mapping):
        return get_state_dict(state_dict)  # refuses it
    return {re.sub(r"^module\.", "", str(name)): v for name, v in state_dict.items()}


def check_state_dict(
    model: nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    source: str,
    allow: str | Sequence[str] = (),
    advice: str = "use the config as the run wrote it into its work directory, with "
    "all that was set on the command line",
) -> None:
    """Check that a state dict fits a model: same names, same shapes.

    Args:
        model: The model to be filled.
        state_dict: The weights.
        source: Where they are from, for the message.
        allow: Regular expressions of names that may be missing, surplus or misshapen.
        advice: What to do, for the message.

    Raises:
        UserError: If anything else is missing, surplus or misshapen; lists it.
    """
    allow = (allow,) if isinstance(allow, str) else allow
    expected = model.state_dict()
    foreign = [n for n, v in state_dict.items() if not isinstance(v, torch.Tensor)]
    if foreign:
        raise UserError(
            f"{source} holds no weights alone: {foreign[0]} is a "
            f"{type(state_dict[foreign[0]]).__name__}; give a checkpoint of a training "
            "run, or what torch.save(model.state_dict()) wrote; weights of PaddleClas "
            "go into the init_cfg of a backbone"
        )

    def counted(names: Iterable[str]) -> list[str]:
        return sorted(
            name
            for name in names
            if not name.endswith("num_batches_tracked")
            and not any(re.match(pattern, name) for pattern in allow)
        )

    missing = counted(expected.keys() - state_dict.keys())
    surplus = counted(state_dict.keys() - expected.keys())
    differing = [
        name
        for name in expected.keys() & state_dict.keys()
        if expected[name].shape != state_dict[name].shape
    ]
    misshapen = counted(differing)
    if not (missing or surplus or misshapen):
        return
    if not differing:  # some models rename weights as they load them
        trial, renamed = copy.deepcopy(model), {}
        trial._register_load_state_dict_pre_hook(lambda own, *_: renamed.update(own))
        try:
            result = trial.load_state_dict(dict(state_dict), strict=False)
        except RuntimeError:  # shapes differ, under the names that they get
            if renamed.keys() == state_dict.keys():
                raise
            return check_state_dict(model, renamed, source, allow, advice)
        missing, surplus = counted(result.missing_keys), counted(result.unexpected_keys)
        if not (missing or surplus):
            return
    shapes = [
        f"{name} is {tuple(state_dict[name].shape)}, not {tuple(expected[name].shape)}"
        for name in misshapen
    ]
    lines = [f"the weights of {source} do not fit this model"]
    for what, names in (
        ("missing", missing),
        ("surplus", surplus),
        ("misshapen", shapes),
    ):
        if names:
            more = f", and {len(names) - 5} more" if len(names) > 5 else ""
            lines.append(f"  {len(names)} {what}: " + ", ".join(names[:5]) + more)
    unfit = missing + surplus + misshapen
    if all("head" in name for name in unfit):
        heads = sorted({name.rpartition(".")[0] for name in unfit})
        advice += (
            "; to train other heads from it, name what may differ: in our configs "
            f"--cfg-options 'custom_hooks.0.allow=[{','.join(heads)}]', in one without "
            f"hooks custom_hooks=[dict(type='CheckpointGuardHook', allow={heads})]"
        )
    lines.append(advice)
    raise UserError("\n".join(lines))
