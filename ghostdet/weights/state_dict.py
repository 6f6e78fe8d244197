"""Check that weights fit a model, and list what does not."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ghostdet.errors import UserError

# PyTorch's message for each tensor of another shape.
_MISMATCH = re.compile(
    r"size mismatch for (\S+): copying a param with shape torch.Size\((\[.*?\])\) "
    r"from checkpoint, the shape in current model is torch.Size\((\[.*?\])\)"
)


def get_state_dict(checkpoint: Any) -> dict[str, Any]:
    """Take the state dict out of a checkpoint.

    Args:
        checkpoint: What :func:`read_checkpoint` returned, or a state dict.

    Returns:
        Tensors by name, without the prefix ``module.`` of ``DataParallel``.

    Raises:
        UserError: If there is no dictionary.
    """
    found = checkpoint
    if isinstance(checkpoint, Mapping):
        found = checkpoint.get("state_dict", checkpoint)
    if not isinstance(found, Mapping):
        raise UserError(
            f"the file holds no state dict but a {type(found).__name__}; give what "
            "torch.save(model.state_dict()) wrote"
        )
    return {str(name).removeprefix("module."): v for name, v in found.items()}


def check_state_dict(
    model: nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    source: str,
    allow: str | Sequence[str] = (),
    advice: str = "use the config that the run wrote into its work directory, which "
    "has the overrides of the command line",
) -> None:
    """Check that a state dict fits a model: same names, same shapes.

    Args:
        model: The model to be filled. It is not changed.
        state_dict: The weights.
        source: The file, for the message.
        allow: Regular expressions, matched at the start of a name, of keys that may be
            missing, unexpected or mismatched.
        advice: What to do next, for the message.

    Raises:
        UserError: If any other key is missing, unexpected or mismatched; lists them.
    """
    allow = (allow,) if isinstance(allow, str) else allow
    for name, value in state_dict.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(
                f"{source} holds more than weights: {name} is a "
                f"{type(value).__name__}; give a checkpoint of a training run, or what "
                "torch.save(model.state_dict()) wrote; weights of PaddleClas go into "
                "the init_cfg of a backbone"
            )
    found = {
        kind: {
            name: text
            for name, text in sorted(keys.items())
            if not name.endswith("num_batches_tracked")
            and not any(re.match(pattern, name) for pattern in allow)
        }
        for kind, keys in _differences(model, state_dict).items()
    }
    names = [name for keys in found.values() for name in keys]
    if not names:
        return
    lines = [f"the weights of {source} do not fit this model"]
    for kind, keys in found.items():
        if keys:
            more = f", and {len(keys) - 5} more" if len(keys) > 5 else ""
            shown = ", ".join(list(keys.values())[:5])
            lines.append(f"  {len(keys)} {kind}: {shown}{more}")
    if all("head" in name for name in names):
        heads = sorted({name.rpartition(".")[0] for name in names})
        advice += (
            "; to train other heads from it, name what may differ: in our configs "
            f"--cfg-options 'custom_hooks.0.allow=[{','.join(heads)}]', in one without "
            f"hooks custom_hooks=[dict(type='CheckpointGuardHook', allow={heads})]"
        )
    raise UserError("\n".join([*lines, advice]))


def _differences(
    model: nn.Module, state_dict: Mapping[str, torch.Tensor]
) -> dict[str, dict[str, str]]:
    """Load into a copy, since some models rename keys, and collect what differs.

    Returns:
        Names and their descriptions, by kind of difference.
    """
    shapes = {name: value.shape for name, value in state_dict.items()}
    if shapes == {name: value.shape for name, value in model.state_dict().items()}:
        return {}
    trial, message = copy.deepcopy(model), ""
    missing, unexpected = {}, {}

    def collect(_: nn.Module, keys: Any) -> None:
        missing.update(zip(keys.missing_keys, keys.missing_keys))
        unexpected.update(zip(keys.unexpected_keys, keys.unexpected_keys))

    # The hook runs before load_state_dict raises, and sees all keys.
    trial.register_load_state_dict_post_hook(collect)
    try:
        trial.load_state_dict(dict(state_dict), strict=False)
    except RuntimeError as error:
        message = str(error)
        if not _MISMATCH.search(message):
            raise
    mismatched = {
        name: f"{name} is {given}, not {expected}"
        for name, given, expected in _MISMATCH.findall(message)
    }
    return {"missing": missing, "unexpected": unexpected, "size mismatch": mismatched}
