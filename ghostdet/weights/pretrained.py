"""Fill a backbone or classifier with pretrained weights: all of them, or an error."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from ghostdet.errors import ConfigError
from ghostdet.models import GhostNet, GhostNetV2, GhostNetV3, ImageClassifier
from ghostdet.models.backbones.ghostnet import BLOCKS
from ghostdet.utils.files import sha256
from ghostdet.weights.checkpoint import read_source
from ghostdet.weights.formats import Weights, backbone_of, read_weights
from ghostdet.weights.state_dict import check_state_dict, get_state_dict
from ghostdet.weights.widen import se_divisor_of, widen_state_dict

NETWORKS = {network.__name__: network for network in (GhostNet, GhostNetV2, GhostNetV3)}
ADVICE = "`ghostdet weights inspect FILE` says what is in it"
# Noise on repeated channels; enough to set them apart in training.
WIDEN_NOISE = 0.01


@WEIGHT_INITIALIZERS.register_module()
class GhostNetPretrained:
    """Initialise a GhostNet or an ``ImageClassifier`` from published weights.

    Args:
        checkpoint: See :func:`read_weights`.
        widen: Widen narrower weights to the backbone's width
            (:func:`widen_state_dict`).
        noise: Noise of the widening.
        seed: Seed of the noise.
    """

    def __init__(
        self,
        checkpoint: str,
        widen: bool = False,
        noise: float = WIDEN_NOISE,
        seed: int = 0,
    ) -> None:
        self.arguments = checkpoint, widen, noise, seed

    def __call__(self, module: GhostNet | ImageClassifier) -> None:
        """Fill the network; see :func:`load_pretrained`."""
        load_pretrained(module, *self.arguments)


@WEIGHT_INITIALIZERS.register_module()
class CheckedPretrained:
    """MMEngine's ``Pretrained`` for any backbone, but all weights fit, or an error.

    Args:
        checkpoint: See :func:`~ghostdet.weights.fetch`.
        allow: Regular expressions, matched at the start of a name, of keys that may be
            unexpected, such as a classifier's.
    """

    def __init__(self, checkpoint: str, allow: str | Sequence[str] = ()) -> None:
        self.checkpoint = checkpoint
        self.allow = (allow,) if isinstance(allow, str) else allow

    def __call__(self, module: nn.Module) -> None:
        """Fill the backbone, and log the file."""
        path, content = read_source(self.checkpoint)
        own = module.state_dict()
        state_dict = {
            name: value
            for name, value in backbone_of(get_state_dict(content)).items()
            if name in own or not any(re.match(p, name) for p in self.allow)
        }
        check_state_dict(module, state_dict, self.checkpoint, advice=ADVICE)
        _fill(module, state_dict)
        print_log(
            f"{type(module).__name__} from {self.checkpoint} (sha256 {sha256(path)}): "
            f"{len(state_dict)} tensors loaded",
            logger="current",
        )


def load_pretrained(
    module: GhostNet | ImageClassifier,
    checkpoint: str | Path,
    widen: bool = False,
    noise: float = 0.0,
    seed: int = 0,
) -> Weights:
    """Fill a network with published weights, and log their source.

    Args:
        module: A GhostNet, GhostNetV2 or GhostNetV3, or a classifier with one.
        checkpoint: See :func:`read_weights`.
        widen: Widen narrower weights to the backbone's width.
        noise: Noise of the widening, see :func:`widen_state_dict`.
        seed: Seed of the noise.

    Returns:
        The content of the file, before any widening.

    Raises:
        UserError: If the file cannot be fetched or read, holds another network, or
            does not fill the module.
        ConfigError: If the backbone has another width (narrower, with ``widen``) or
            another SE gate, or the weights have no such classifier.
    """
    classifies = isinstance(module, ImageClassifier)
    backbone = module.backbone if classifies else module
    if not isinstance(backbone, GhostNet):
        raise ConfigError(
            f"GhostNetPretrained is for GhostNet backbones, not for "
            f"{type(backbone).__name__}; use its own init_cfg"
        )
    weights = read_weights(checkpoint)
    _check_network(backbone, weights)
    state_dict = dict(weights.state_dict) if classifies else weights.backbone
    widened = ""
    if _same_width(backbone, state_dict):
        if widen:
            widened = f", not widened: both are {backbone.widen_factor:g}x"
    else:
        wider = backbone.widen_factor > weights.widen_factor
        if not (widen and wider):
            advice = ", or widen=True in init_cfg" if wider else ""
            raise ConfigError(
                f"{weights} does not fit a backbone of {backbone.widen_factor:g}x; set "
                f"widen_factor={weights.widen_factor:g}{advice}"
            )
        state_dict = widen_state_dict(
            state_dict, backbone.widen_factor, noise, seed, backbone.se_divisor
        )
        widened = f", widened to {backbone.widen_factor:g}x (noise {noise:g})"
    if classifies:
        _check_classifier(module, weights)
    # Layers after the last output are not built.
    state_dict = {
        name: value
        for name, value in state_dict.items()
        if not (stage := re.match(r"blocks\.(\d+)\.", name))
        or not len(backbone.blocks) <= int(stage[1]) <= len(BLOCKS)
    }
    check_state_dict(module, state_dict, str(weights), advice=ADVICE)
    _fill(module, state_dict)
    print_log(
        f"{weights} ({weights.format}, sha256 {weights.sha256}): {len(state_dict)} "
        f"tensors loaded{widened}; {len(weights.state_dict) - len(state_dict)} of "
        "layers after the last output left out",
        logger="current",
    )
    return weights


def _fill(module: nn.Module, state_dict: dict[str, Tensor]) -> None:
    """Load weights that were checked to fit, and keep them.

    Otherwise MMEngine would initialise the children of the module next, such as MMCV's
    ConvModules. It spares them only after the initialiser called Pretrained.
    """
    module.load_state_dict(state_dict, strict=False)
    for child in module.modules():
        if child is not module and hasattr(child, "init_weights"):
            child.is_init = True


def _check_network(backbone: GhostNet, weights: Weights) -> None:
    """Compare version and SE gate, which shapes do not tell."""
    own = next(c.__name__ for c in type(backbone).__mro__ if c.__name__ in NETWORKS)
    if weights.network != own:
        raise ConfigError(
            f"{weights} is not for a {own}; set backbone=dict(type='{weights.network}')"
        )
    if weights.se_gate is None:
        print_log(
            f"{weights} does not name its SE gate; we assume the backbone's, "
            f"{backbone.se_gate}",
            logger="current",
            level=logging.WARNING,
        )
    elif weights.se_gate != backbone.se_gate:
        raise ConfigError(
            f"{weights} ({weights.format}) has the SE gate {weights.se_gate}, and the "
            f"backbone {backbone.se_gate}, which gives other outputs; set "
            f"backbone=dict(se_gate='{weights.se_gate}', "
            f"se_divisor={se_divisor_of(weights.backbone)})"
        )


def _check_classifier(module: ImageClassifier, weights: Weights) -> None:
    """Check that the weights have a classifier with as many classes."""
    alone = (
        "to start from the backbone alone, with any classes: --cfg-options "
        "model.init_cfg=None model.backbone.init_cfg.type=GhostNetPretrained "
        f"model.backbone.init_cfg.checkpoint={weights.source}"
    )
    if not module.head.state_dict().keys() <= weights.state_dict.keys():
        raise ConfigError(
            f"{weights} ({weights.format}) has no classifier, or another one; {alone}"
        )
    classes = len(weights.state_dict["classifier.weight"])
    if classes != module.head.num_classes:
        raise ConfigError(
            f"{weights} has {classes} classes, and the head "
            f"{module.head.num_classes}; {alone}\n"
            f"For the classes of the weights: model.head.num_classes={classes}"
        )


def _same_width(backbone: GhostNet, state_dict: dict[str, Tensor]) -> bool:
    """Tell whether most bottlenecks have as many outputs as the backbone's."""
    expected = backbone.state_dict()
    same = [
        len(value) == len(expected[name])
        for name, value in state_dict.items()
        if name in expected and re.fullmatch(r".*\.ghost2\..*weight", name)
    ]
    return 2 * sum(same) > len(same)
