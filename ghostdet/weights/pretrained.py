"""Pretrained weights in a backbone or classifier: all of them, or an error."""

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
ADVICE = "`python -m ghostdet weights inspect FILE` says what is in it"
# Of the weights that widening repeats; enough for them to part in training.
WIDEN_NOISE = 0.01


@WEIGHT_INITIALIZERS.register_module()
class GhostNetPretrained:
    """Initialise a GhostNet from published weights, by its ``init_cfg``.

    That of a backbone, or of a whole :class:`~ghostdet.models.ImageClassifier`.

    ::

        backbone=dict(
            type="GhostNet",
            widen_factor=1.1,
            init_cfg=dict(
                type="GhostNetPretrained",
                checkpoint="hf-hub:timm/ghostnet_100.in1k",
                widen=True,
            ),
        )

    Args:
        checkpoint: What :func:`read_weights` takes.
        widen: Widen narrower weights to the backbone's width
            (:func:`widen_state_dict`).
        noise: Noise of the widening.
        seed: Its seed.
    """

    def __init__(
        self,
        checkpoint: str,
        widen: bool = False,
        noise: float = WIDEN_NOISE,
        seed: int = 0,
    ) -> None:
        self.checkpoint = checkpoint
        self.widen = widen
        self.noise = noise
        self.seed = seed

    def __call__(self, module: GhostNet | ImageClassifier) -> None:
        """Fill the network; see :func:`load_pretrained`."""
        load_pretrained(module, self.checkpoint, self.widen, self.noise, self.seed)


@WEIGHT_INITIALIZERS.register_module()
class CheckedPretrained:
    """MMEngine's ``Pretrained`` for any backbone, but all weights fit, or an error.

    Args:
        checkpoint: What :func:`~ghostdet.weights.fetch` takes.
        allow: Regular expressions, matched at the start of a name, of weights that may
            be surplus, such as a classifier's.
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
    """Fill all of a network with published weights, and log what was done.

    Args:
        module: A GhostNet, GhostNetV2 or GhostNetV3, or a classifier with one.
        checkpoint: What :func:`read_weights` takes.
        widen: Widen narrower weights to the backbone's width.
        noise: Noise of the widening, as of :func:`widen_state_dict`.
        seed: Its seed.

    Returns:
        The weights as they were read.

    Raises:
        UserError: If the file cannot be had or read, is of another network, or does
            not fill the module.
        ConfigError: If the backbone has another width (narrower, with ``widen``) or
            another SE gate, or the weights have no such classifier.
    """
    whole = isinstance(module, ImageClassifier)
    backbone = module.backbone if whole else module
    if not isinstance(backbone, GhostNet):
        raise ConfigError(
            f"GhostNetPretrained is for GhostNet backbones, not for "
            f"{type(backbone).__name__}; use its own init_cfg"
        )
    weights = read_weights(checkpoint)
    _check_network(backbone, weights)
    state_dict = dict(weights.state_dict) if whole else weights.backbone
    widened = ""
    if _same_width(backbone, state_dict):
        if widen:
            widened = f", not widened: both are {backbone.widen_factor:g}x"
    else:
        difference = backbone.widen_factor - weights.widen_factor
        if not (widen and difference > 0):
            wider = ", or widen=True in init_cfg" if difference > 0 else ""
            raise ConfigError(
                f"{weights} does not fit a backbone of {backbone.widen_factor:g}x; set "
                f"widen_factor={weights.widen_factor:g}{wider}"
            )
        state_dict = widen_state_dict(
            state_dict, backbone.widen_factor, noise, seed, backbone.se_divisor
        )
        widened = (
            f", widened to {backbone.widen_factor:g}x with noise {noise:g} and seed "
            f"{seed}"
        )
    if whole:
        _check_classifier(module, weights)
    # Layers behind the last output are not built.
    unused = [
        name
        for name in state_dict
        if (stage := re.match(r"blocks\.(\d+)\.", name))
        and len(backbone.blocks) <= int(stage[1]) <= len(BLOCKS)
    ]
    for name in unused:
        del state_dict[name]
    check_state_dict(module, state_dict, str(weights), advice=ADVICE)
    _fill(module, state_dict)
    print_log(
        f"{weights} ({weights.format}, sha256 {weights.sha256}): {len(state_dict)} "
        f"tensors loaded{widened}; {len(weights.state_dict) - len(state_dict)} of "
        "layers behind the last output left out",
        logger="current",
    )
    return weights


def _fill(module: nn.Module, state_dict: dict[str, Tensor]) -> None:
    """Load weights that were checked to fit, and have them stay.

    MMEngine goes on to initialise the children of a module, MMCV's ConvModules among
    them, unless its initialiser is the one called Pretrained.
    """
    module.load_state_dict(state_dict, strict=False)
    for child in module.modules():
        if child is not module and hasattr(child, "init_weights"):
            child.is_init = True


def _check_network(backbone: GhostNet, weights: Weights) -> None:
    """Compare what shapes alone do not tell, or tell badly."""
    own = next(c.__name__ for c in type(backbone).__mro__ if c.__name__ in NETWORKS)
    if weights.network != own:
        raise ConfigError(
            f"{weights} is not for a {own}; set backbone=dict(type='{weights.network}')"
        )
    if weights.se_gate is None:
        print_log(
            f"{weights} cannot tell its SE gate; it is taken to be the backbone's, "
            f"{backbone.se_gate}",
            logger="current",
            level=logging.WARNING,
        )
    if weights.se_gate not in (None, backbone.se_gate):
        divisor = se_divisor_of(weights.backbone)
        raise ConfigError(
            f"{weights} ({weights.format}) has the SE gate {weights.se_gate}, and the "
            f"backbone {backbone.se_gate}, with which its outputs would be others; set "
            f"backbone=dict(se_gate='{weights.se_gate}', se_divisor={divisor})"
        )


def _check_classifier(module: ImageClassifier, weights: Weights) -> None:
    """See that there is a classifier in the weights, of as many classes."""
    alone = (
        "to start from the backbone alone, which serves any classes: --cfg-options "
        "model.init_cfg=None model.backbone.init_cfg.type=GhostNetPretrained "
        f"model.backbone.init_cfg.checkpoint={weights.source}"
    )
    missing = module.head.state_dict().keys() - weights.state_dict.keys()
    if missing:
        other = (
            " (that of PaddleClas has a norm, and is another one)"
            if weights.format == "PaddleClas"
            else ""
        )
        raise ConfigError(
            f"{weights} ({weights.format}) has no {', '.join(sorted(missing))}"
            f"{other}, which a whole classifier needs; {alone}"
        )
    classes = len(weights.state_dict["classifier.weight"])
    if classes != module.head.num_classes:
        raise ConfigError(
            f"{weights} has {classes} classes, and the head "
            f"{module.head.num_classes}; {alone}\n"
            f"For the classes of the weights: model.head.num_classes={classes}"
        )


def _same_width(backbone: GhostNet, state_dict: dict[str, Tensor]) -> bool:
    """Whether most bottlenecks have as many outputs as the backbone's."""
    expected = backbone.state_dict()
    same = [
        len(value) == len(expected[name])
        for name, value in state_dict.items()
        if name in expected and re.fullmatch(r".*\.ghost2\..*weight", name)
    ]
    return 2 * sum(same) > len(same)
