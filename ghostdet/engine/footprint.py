"""What training takes, of memory and on the disk, computed beforehand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.detectors import SingleStageDetector
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ghostdet.components import type_name
from ghostdet.models import ImageClassifier

from .complexity import check_kind, run_heads

# Losses hold copies of all that is predicted, before they choose: targets, weights,
# logits in another order, gradients. Their peak in copies, measured (docs/check.md).
_COPIES = 11


@dataclass(frozen=True)
class Footprint:
    """Bytes that training takes.

    Args:
        weights: Parameters and buffers.
        gradients: Of the parameters that are trained.
        optimizer: State of the optimiser.
        activations: What the forward pass keeps for the backward pass, and the losses.
        averaged: Averaged weights of an ``EMAHook``.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    averaged: int

    @property
    def memory(self) -> int:
        """Of the device, in all."""
        return (
            self.weights
            + self.gradients
            + self.optimizer
            + self.activations
            + self.averaged
        )

    @property
    def checkpoint(self) -> int:
        """Of one checkpoint, with the state of the optimiser."""
        return self.weights + self.optimizer + self.averaged


def footprint(
    cfg: Config, model: nn.Module, shape: tuple[int, int], images: int
) -> Footprint:
    """Compute what training takes; an estimate, as far as activations go.

    The network is run on the meta device, where nothing is computed, and what autograd
    saves is added up. The workspace of convolutions, and what an allocator holds
    without using it, are not in it.

    Args:
        cfg: A config with ``optim_wrapper``.
        model: The detector or classifier, on the meta device.
        shape: Height and width of a batch, padded.
        images: Images in it.

    Returns:
        The bytes.

    Raises:
        UserError: If the detector is of a kind that
            :func:`~ghostdet.engine.complexity` does not count.
    """
    if not isinstance(model, ImageClassifier):
        check_kind(model, str(cfg.filename))
    parameters = [p for p in model.parameters() if p.requires_grad]
    weights = _bytes([*model.parameters(), *model.buffers()])
    kinds = [type_name(hook.get("type")) for hook in cfg.get("custom_hooks") or []]
    averaged = weights if any(kind.endswith("EMAHook") for kind in kinds) else 0
    activations = _activations(model.train(), shape, images)
    if type_name(cfg.optim_wrapper.get("type")) == "AmpOptimWrapper":
        activations //= 2
    return Footprint(
        weights=weights,
        gradients=_bytes(parameters),
        optimizer=_optimizer(cfg, model, parameters),
        activations=activations,
        averaged=averaged,
    )


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def saved_bytes(model: nn.Module, run: Callable[[], Any]) -> tuple[int, Any]:
    """Count what autograd saves for a backward pass, weights and buffers apart.

    Args:
        model: On any device.
        run: Runs it forward.

    Returns:
        The bytes, each storage counted once, and what ``run`` returned.
    """
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage  # kept, so that no other gets its address
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = run()
    return sum(storage.nbytes() for storage in saved.values()), output


def _activations(model: nn.Module, shape: tuple[int, int], images: int) -> int:
    """Bytes of what the network keeps, and of its losses."""
    if isinstance(model, ImageClassifier):
        with torch.device("meta"):
            inputs = torch.empty(images, 3, *shape)
            labels = torch.empty(images, dtype=torch.int64)
            return saved_bytes(
                model, lambda: model(inputs, dict(gt_label=labels), mode="loss")
            )[0]
    boxes = masks = 0
    if not isinstance(model, SingleStageDetector):
        stages = model.train_cfg.rcnn
        sampler = (stages[0] if isinstance(stages, list) else stages).sampler
        boxes = images * sampler.num
        masks = int(boxes * sampler.pos_fraction)

    def run() -> list[Any]:
        features = model.extract_feat(torch.empty(images, 3, *shape))
        return run_heads(model, features, boxes, masks)

    with torch.device("meta"):
        kept, outputs = saved_bytes(model, run)
    return kept + _COPIES * _bytes(_tensors(outputs[0]))


def _tensors(node: Any) -> list[Tensor]:
    if isinstance(node, Tensor):
        return [node]
    return [tensor for part in node or () for tensor in _tensors(part)]


def _optimizer(cfg: Config, model: nn.Module, parameters: list[Tensor]) -> int:
    """Bytes of the optimiser's state, after a step with gradients on meta."""
    wrapper = copy.deepcopy(cfg.optim_wrapper)
    wrapper = dict(type="OptimWrapper", optimizer=wrapper.optimizer)
    optimizer = build_optim_wrapper(model, wrapper).optimizer
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    return _bytes(
        [
            value
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        ]
    )
