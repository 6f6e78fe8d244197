"""Inspect, verify, convert and widen files of weights, for ``tools/weights.py``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from ghostdet.errors import UserError
from ghostdet.models.backbones.ghostnet import FEATURE_LEVELS, GhostNet
from ghostdet.utils.files import atomic_outputs
from ghostdet.weights.formats import CLASSIFIER, Weights, read_weights
from ghostdet.weights.pretrained import NETWORKS, load_pretrained
from ghostdet.weights.widen import se_divisor_of, widen_state_dict


def inspect(checkpoint: str) -> Weights:
    """Print network, width, format and checksum of a file of weights."""
    weights = read_weights(checkpoint)
    parameters = sum(
        value.numel()
        for name, value in weights.backbone.items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    classifier = len(weights.state_dict) - len(weights.backbone)
    print(
        f"{weights.source}\n"
        f"  network     {weights.network} {weights.widen_factor:g}x\n"
        f"  format      {weights.format}\n"
        f"  SE gate     {weights.se_gate or 'as in the config it was trained with'}\n"
        f"  backbone    {len(weights.backbone)} tensors, {parameters / 1e6:.2f}M "
        f"parameters\n"
        f"  classifier  {classifier} tensors\n"
        f"  sha256      {weights.sha256}"
    )
    return weights


def verify(checkpoint: str) -> None:
    """Check that weights fill a backbone, and print how deep it is.

    Raises:
        UserError: If keys are missing, unexpected or mismatched.
    """
    weights = inspect(checkpoint)
    stages = [re.match(r"blocks\.(\d+)\.", name) for name in weights.backbone]
    deepest = max(int(stage[1]) for stage in stages if stage)
    last = max(i for i, level in enumerate(FEATURE_LEVELS) if level.block <= deepest)

    def build(width: float) -> GhostNet:
        return NETWORKS[weights.network](
            width,
            (last,),
            se_gate=weights.se_gate or "hard_sigmoid",
            se_divisor=se_divisor_of(weights.backbone),
        )

    def fits(width: float) -> bool:
        with torch.device("meta"):
            expected = build(width).state_dict()
        return all(
            value.shape == expected[name].shape
            for name, value in weights.backbone.items()
            if name in expected
        )

    # The width in `weights` comes from rounded channels, so it is not exact.
    near = (round(weights.widen_factor + step / 100, 2) for step in range(-5, 6))
    widths = (weights.widen_factor, *near)
    network = build(next(filter(fits, widths), weights.widen_factor))
    load_pretrained(network, checkpoint)
    print(f"the backbone is complete up to stride {network.out_strides[0]}")


def convert(checkpoint: str, out: str) -> None:
    """Write weights of any format under the official names, as ``.safetensors``."""
    weights = read_weights(checkpoint)
    save_weights(weights.state_dict, weights, out)


def widen(
    checkpoint: str, out: str, widen_factor: float, noise: float = 0.0, seed: int = 0
) -> None:
    """Write the weights of a wider GhostNet; see :func:`widen_state_dict`."""
    weights = read_weights(checkpoint)
    wide = widen_state_dict(weights.state_dict, widen_factor, noise, seed)
    save_weights(wide, weights, out)


def save_weights(state_dict: Mapping[str, Tensor], origin: Weights, out: str) -> None:
    """Write weights as safetensors.

    Args:
        state_dict: The weights.
        origin: Their source, for the file's metadata.
        out: The file; its name ends in ``.safetensors``.

    Raises:
        UserError: If it has another name or cannot be written.
    """
    path = Path(out)
    if path.suffix != ".safetensors":
        raise UserError(f"{out!r} does not end in .safetensors; give such a name")
    metadata = {
        "format": "pt",
        "network": origin.network,
        "source": origin.source,
        "source_sha256": origin.sha256,
        "se_gate": origin.se_gate or "unknown",
    }
    weights = {name: value.contiguous() for name, value in state_dict.items()}
    with atomic_outputs(path) as folder:
        content = safetensors.torch.save(weights, metadata)
        (folder / path.name).write_bytes(content)
    backbone = len(state_dict.keys() - CLASSIFIER)
    print(f"{out}: {backbone} tensors of the backbone, {len(state_dict)} in all")
