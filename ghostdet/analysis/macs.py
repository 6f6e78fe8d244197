"""Count parameters and multiply-accumulates of a model, part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ghostdet.analysis import paper
from ghostdet.config import config_mistakes, load_config, require
from ghostdet.errors import UserError
from ghostdet.models import ImageClassifier
from ghostdet.utils.components import is_classifier, iter_datasets

BACKBONE_SHAPE = (224, 224)  # ImageNet's, at which papers state MACs of backbones
DETECTOR_SHAPE = (800, 1333)  # COCO's, as MMDetection resizes it


def complexity(
    config: str | Path | Config, shape: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Count parameters and MACs of a one-stage or two-stage detector, or a classifier.

    Convolutions, deformable ones among them, and matrix products count, by torch's
    ``FlopCounterMode``; norms, activations, pooling and RoIAlign do not. A second stage
    is counted for ``test_cfg.rpn.max_per_img`` proposals, its masks for
    ``test_cfg.rcnn.max_per_img`` boxes. The model is on the meta
    device, so nothing is computed.

    Args:
        config: A config, or the path of one.
        shape: Height and width of the image, which the data preprocessor pads. Defaults
            to the size that the config's pipelines make, or 800x1333 for a detector and
            224x224 for a classifier.

    Returns:
        ``config``, ``shape`` (padded), ``params`` and ``macs`` of ``backbone``,
        ``neck`` (of detectors), ``head`` and ``total``; ``backbone_macs_224``, MACs of
        the backbone on 224x224; and ``paper``, the paper's parameters and MACs in
        millions and top-1 for an unchanged classifier of ghostdet.

    Raises:
        UserError: If the config has no such model, or ``shape`` is empty.

    Example:
        >>> from ghostdet import CONFIGS
        >>> result = complexity(CONFIGS + '/retinanet_ghostnet_fpn.py', (224, 224))
        >>> round(result['params']['backbone'] / 1e6, 2)
        3.03
    """
    cfg = config if isinstance(config, Config) else load_config(config)
    require(cfg, "model")
    if shape is not None and min(shape) < 1:
        raise UserError(f"shape is {tuple(shape)}, expected height and width in px")
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"):
        with config_mistakes(cfg):
            model = MODELS.build(cfg.model).eval().to("meta")
        classifier = isinstance(model, ImageClassifier)
        if not classifier:
            _check_kind(model, str(cfg.filename))
        usual = _pipeline_shape(cfg)
        shape = shape or usual
        figures = _paper(cfg) if tuple(shape) == usual else None
        divisor = getattr(model.data_preprocessor, "pad_size_divisor", 1)
        shape = tuple(-(-side // divisor) * divisor for side in shape)
        small, _ = _count(model.backbone, torch.empty(1, 3, *BACKBONE_SHAPE))
        params, macs = {"backbone": _params(model.backbone)}, {}
        macs["backbone"], x = _count(model.backbone, torch.empty(1, 3, *shape))
        if classifier:
            macs["head"], _ = _count(model.head, x)
        else:
            params["neck"] = _params(model.neck) if model.with_neck else 0
            macs["neck"], x = _count(model.neck, x) if model.with_neck else (0, x)
            macs["head"] = _head_macs(model, x)
    heads = [m for n, m in model.named_children() if n.endswith("head")]
    params["head"] = sum(map(_params, heads))
    return {
        "config": str(cfg.filename),
        "shape": shape,
        "params": {**params, "total": sum(params.values())},
        "macs": {**macs, "total": sum(macs.values())},
        "backbone_macs_224": small,
        "paper": figures,
    }


def complexity_table(results: Sequence[dict[str, Any]]) -> str:
    """Lay out results of :func:`complexity` as a Markdown table.

    Unchanged classifiers get the paper's figures (:mod:`~ghostdet.analysis.paper`).

    Raises:
        UserError: If detectors are padded to different shapes, or if there are
            detectors and classifiers.
    """
    kinds = {"neck" in result["params"] for result in results}
    if len(kinds) > 1:
        raise UserError(
            "detectors and classifiers need two tables; give the configs of one kind"
        )
    rows = _detector_rows(results) if kinds.pop() else _classifier_rows(results)
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _detector_rows(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    shapes = {tuple(result["shape"]) for result in results}
    if len(shapes) > 1:
        raise UserError(
            f"the configs pad images to {sorted(shapes)}; give a --shape that none of "
            "them pads, or one config at a time"
        )
    height, width = results[0]["shape"]
    parts = ["backbone", "neck", "head", "total"]
    head = ["config", *(f"{part}, params" for part in parts), "backbone, MACs at 224"]
    head += [f"{part}, MACs at {height}x{width}" for part in parts]
    return [head] + [
        [
            Path(result["config"]).stem,
            *(f"{result['params'][part] / 1e6:.2f}M" for part in parts),
            f"{result['backbone_macs_224'] / 1e6:.1f}M",
            *(f"{result['macs'][part] / 1e9:.2f}G" for part in parts),
        ]
        for result in results
    ]


def _classifier_rows(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    parts = ["backbone", "head", "total"]
    head = ["config", "image", *(f"{part}, params" for part in parts)]
    head += [f"{part}, MACs" for part in parts]
    head += ["paper, params", "paper, MACs", "paper, top-1"]
    rows = [head]
    for result in results:
        params, macs, top1 = result["paper"] or (None,) * 3
        rows.append(
            [
                Path(result["config"]).stem,
                "x".join(map(str, result["shape"])),
                *(f"{result['params'][part] / 1e6:.2f}M" for part in parts),
                *(f"{result['macs'][part] / 1e6:.1f}M" for part in parts),
                "-" if params is None else f"{params}M",
                "-" if macs is None else f"{macs}M",
                "-" if top1 is None else str(top1),
            ]
        )
    return rows


def _paper(cfg: Config) -> tuple[float, float, float] | None:
    """Look up the paper's figures for a config of ghostdet, if it is unchanged."""
    name = Path(str(cfg.filename)).stem
    if name not in paper.CLASSIFIERS:
        return None
    shipped = paper.shipped_config(name)
    changed = paper.differences(shipped.to_dict(), cfg.to_dict())
    return paper.CLASSIFIERS[name] if paper.applies(changed) else None


def _pipeline_shape(cfg: Config) -> tuple[int, int]:
    """Find the last ``size`` of a classifier's pipelines, ``scale`` of a detector's.

    The pipeline that evaluates comes first. It has no size where all images have the
    same, and then the crops of training tell.
    """
    classifier = is_classifier(cfg)
    key = "size" if classifier else "scale"
    for part in ("test", "val", "train"):
        loader = cfg.get(f"{part}_dataloader") or {}
        for _, dataset in iter_datasets(loader.get("dataset") or {}):
            steps = dataset.get("pipeline") or []
            sizes = [step[key] for step in steps if step.get(key)]
            if sizes:
                size = np.ravel(sizes[-1]).tolist()[-2:]  # the largest of a range
                return (size[0], size[-1]) if classifier else (size[-1], size[0])
    return BACKBONE_SHAPE if classifier else DETECTOR_SHAPE


def _check_kind(model: nn.Module, config: str) -> None:
    """Refuse detectors that compute more than is counted."""
    known = isinstance(model, SingleStageDetector) or (
        isinstance(model, TwoStageDetector)
        and type(model.roi_head) in (StandardRoIHead, CascadeRoIHead)
        and not model.roi_head.with_shared_head
        and model.with_rpn
    )
    heads = {name for name, _ in model.named_children() if name.endswith("head")}
    if not known or heads - {"bbox_head", "rpn_head", "roi_head"}:
        raise UserError(
            f"{config} has a {type(model).__name__} with {', '.join(sorted(heads))}; "
            "one-stage detectors and detectors with a StandardRoIHead or "
            "CascadeRoIHead are counted"
        )


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _count(run: Callable[..., Any], *inputs: Any) -> tuple[int, Any]:
    def deform_conv_flops(x: Any, weight: Any, *_: Any, out_shape: Any) -> int:
        return 2 * out_shape.numel() * weight[1:].numel()

    operators = {torch.ops.torchvision.deform_conv2d: deform_conv_flops}
    with FlopCounterMode(display=False, custom_mapping=operators) as counter:
        output = run(*inputs)
    return counter.get_total_flops() // 2, output


def _head_macs(model: nn.Module, features: Sequence[Tensor]) -> int:
    """Count the networks of a detector's heads, without post-processing."""
    if isinstance(model, SingleStageDetector):
        return _count(model.bbox_head, features)[0]
    total, _ = _count(model.rpn_head, features)
    roi_head, test_cfg = model.roi_head, model.test_cfg
    networks = [(roi_head.bbox_head, test_cfg.rpn.max_per_img)]
    if roi_head.with_mask:
        networks.append((roi_head.mask_head, test_cfg.rcnn.max_per_img))
    for stages, count in networks:
        for stage in stages if isinstance(stages, nn.ModuleList) else [stages]:
            size = stage.roi_feat_size
            size = (size, size) if isinstance(size, int) else size
            regions = features[0].new_empty(count, stage.in_channels, *size)
            total += _count(stage, regions)[0]
    return total
