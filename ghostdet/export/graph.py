"""A detector as one graph, from image tensor to boxes, scores and labels.

MMDetection's ``predict`` treats one image after another, with tensor sizes that depend
on the values. This module does the same for a batch, with sizes that depend on its
shape only. Priors, box coders and levels of regions are MMDetection's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torchvision
from mmcv.ops import RoIAlign
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads import GFLHead, RPNHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder, DistancePointBBoxCoder
from mmengine.config import ConfigDict
from torch import Tensor, nn

from ghostdet.errors import UserError

SUPPORTED = (
    "one-stage detectors whose head predicts as MMDetection's BaseDenseHead or GFLHead "
    "do (RetinaHead, ATSSHead, FCOSHead, GFLHead, RTMDetSepBNHead, ...), and "
    "FasterRCNN with RPNHead, StandardRoIHead, SingleRoIExtractor and a BBoxHead"
)


class Candidates(NamedTuple):
    """Boxes before NMS."""

    boxes: Tensor  # float (N, M, 4), x1 y1 x2 y2 in pixels
    scores: Tensor  # float (N, M), 0 for no candidate
    labels: Tensor  # int64 (N, M)


class DetectionGraph(nn.Module):
    """A detector that can be exported: tensors in, tensors out, NMS inside.

    Args:
        detector: A detector in evaluation mode. Call
            :func:`~ghostdet.export.fuse_for_inference` first for speed.

    Raises:
        UserError: If a part of it cannot be exported.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        check_supported(detector)
        self.detector = detector

    def forward(self, image: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect objects in a batch.

        Args:
            image: Normalised images, float32 ``(N, 3, H, W)``, padded.
            shape: Height and width without the padding, int64 ``(2,)``.

        Returns:
            Boxes ``(N, K, 4)``, x1 y1 x2 y2 in pixels of ``image``, scores ``(N, K)``,
            descending, and labels, int64 ``(N, K)``. Rows after the last detection have
            score 0. K is ``max_per_img``, or the number of priors if that is smaller.
        """
        features = self.detector.extract_feat(image)
        limit = shape.flip(0).repeat(2).to(image.dtype)  # of x1 y1 x2 y2
        if isinstance(self.detector, SingleStageDetector):
            head = self.detector.bbox_head
            return suppress(dense_candidates(head, features, limit), head.test_cfg)
        head = self.detector.rpn_head
        found = dense_candidates(head, features, limit)
        # RPN's labels are levels, so that NMS treats each level by itself.
        proposals, objectness, _ = suppress(found, head.test_cfg)
        head = self.detector.roi_head
        found = roi_candidates(head, features, proposals, objectness, limit)
        # MMDetection ignores min_bbox_size in the second stage.
        return suppress(found, ConfigDict(head.test_cfg, min_bbox_size=-1))


def dense_candidates(
    head: BaseDenseHead, features: Sequence[Tensor], limit: Tensor
) -> Candidates:
    """Run a dense head and decode the best ``nms_pre`` of each level."""
    cfg = head.test_cfg
    is_rpn = isinstance(head, RPNHead)
    score_thr = 0.0 if is_rpn else cfg.get("score_thr", 0.0)
    levels: list[Candidates] = []
    for level, (logits, predictions, *factors) in enumerate(zip(*head(features))):
        size = [_tensor(side) for side in logits.shape[-2:]]
        # (N, anchors of a place, classes, places). Tensors of this size are not
        # transposed, but picked from by index.
        logits = logits.unflatten(1, (-1, head.cls_out_channels)).flatten(3)
        if not head.use_sigmoid_cls:
            logits = logits.softmax(2)[:, :, :-1]
        values, labels, anchor, place = _best(logits, cfg.nms_pre)
        scores = values.sigmoid() if head.use_sigmoid_cls else values
        chosen = scores > score_thr
        if factors:  # centerness
            factor = _pick(_per_anchor(factors[0], logits), anchor, place).squeeze(2)
            scores = scores * factor.sigmoid()
        predictions = _pick(_per_anchor(predictions, logits), anchor, place)
        priors = head.prior_generator.sparse_priors(
            (place * logits.shape[1] + anchor).flatten(),
            size,
            level,
            predictions.dtype,
            predictions.device,
        )
        levels.append(
            Candidates(
                _decode(head, level, priors, predictions, limit),
                torch.where(chosen, scores, 0.0),
                torch.full_like(labels, level) if is_rpn else labels,
            )
        )
    return Candidates(*(torch.cat(part, 1) for part in zip(*levels)))


def _best(logits: Tensor, nms_pre: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pick the ``nms_pre`` largest of the logits ``(N, A, C, P)``, or all if fewer.

    They belong to the anchors with the largest maximum, so that only one value of each
    anchor is sorted. With them come their class, anchor and place.
    """
    _, _, classes, places = logits.shape
    best = logits.amax(2).flatten(1)
    anchors = torch.sym_min(nms_pre, best.shape[1])
    values, index = best.topk(anchors)
    anchor, place = index // _tensor(places), index % _tensor(places)
    if classes == 1:
        return values, torch.zeros_like(index), anchor, place
    values = _pick(logits, anchor, place).flatten(1)
    values, index = values.topk(torch.sym_min(nms_pre, anchors * classes))
    row = index // classes
    return values, index % classes, anchor.gather(1, row), place.gather(1, row)


def _tensor(size: int) -> Tensor:
    """Make a tensor of a size: the exporter cannot divide by a symbolic size."""
    return torch.scalar_tensor(size, dtype=torch.int64)


def _per_anchor(x: Tensor, logits: Tensor) -> Tensor:
    """Reshape ``(N, A * D, H, W)`` to ``(N, A, D, P)``."""
    return x.unflatten(1, (logits.shape[1], -1)).flatten(3)


def _pick(x: Tensor, anchor: Tensor, place: Tensor) -> Tensor:
    """Pick ``(N, K, D)`` from ``(N, A, D, P)`` at anchors and places ``(N, K)``."""
    _, _, depth, places = x.shape
    channel = anchor.unsqueeze(2) * depth + torch.arange(depth, device=x.device)
    index = channel * places + place.unsqueeze(2)
    return x.flatten(1).gather(1, index.flatten(1)).unflatten(1, (-1, depth))


def _decode(
    head: BaseDenseHead | BBoxHead,
    level: int,
    priors: Tensor,
    predictions: Tensor,
    limit: Tensor,
) -> Tensor:
    """Decode predictions ``(N, K, D)`` for priors to boxes ``(N, K, 4)``."""
    batch, count = predictions.shape[:2]
    predictions = predictions.flatten(0, 1)
    if isinstance(head, GFLHead):
        predictions = (
            head.integral(predictions) * head.prior_generator.strides[level][0]
        )
        priors = head.anchor_center(priors)
    boxes = head.bbox_coder.decode(priors, predictions)
    boxes = boxes.unflatten(0, (batch, count))
    if not head.bbox_coder.clip_border:
        return boxes
    return torch.minimum(boxes.clamp(min=0), limit)


def roi_candidates(
    head: StandardRoIHead,
    features: Sequence[Tensor],
    proposals: Tensor,
    objectness: Tensor,
    limit: Tensor,
) -> Candidates:
    """Run the second stage on proposals ``(N, P, 4)`` with objectness above 0."""
    batch, count = objectness.shape
    device = proposals.device
    image = torch.arange(batch, device=device, dtype=proposals.dtype)
    image = image.view(-1, 1, 1).expand(batch, count, 1)
    rois = torch.cat([image, proposals], 2).flatten(0, 1)
    valid = objectness.flatten() > 0
    extractor, stage = head.bbox_roi_extractor, head.bbox_head
    levels = extractor.map_roi_levels(rois, extractor.num_inputs)
    pooled = rois.new_zeros(
        (batch * count, extractor.out_channels, *extractor.roi_layers[0].output_size)
    )
    for level, layer in enumerate(extractor.roi_layers):
        index = ((levels == level) & valid).nonzero()[:, 0]
        pooled[index] = torchvision.ops.roi_align(
            features[level],
            rois[index],
            layer.output_size,
            layer.spatial_scale,
            layer.sampling_ratio,
            layer.aligned,
        )
    logits, deltas = stage(pooled)
    classes = stage.num_classes
    scores = logits.softmax(1)[:, :classes].unflatten(0, (batch, count))
    chosen = (scores > head.test_cfg.score_thr) & valid.view(batch, count, 1)
    per_roi = 1 if stage.reg_class_agnostic else classes
    priors = rois[:, None, 1:].expand(-1, per_roi, -1).flatten(0, 1)
    deltas = deltas.view(batch, count * per_roi, 4)
    boxes = _decode(stage, 0, priors, deltas, limit)
    boxes = boxes.view(batch, count, per_roi, 4).expand(-1, -1, classes, -1)
    labels = torch.arange(classes, device=device).expand(batch, count, classes)
    return Candidates(
        boxes.flatten(1, 2),
        torch.where(chosen, scores, 0.0).flatten(1),
        labels.flatten(1),
    )


def suppress(found: Candidates, cfg: ConfigDict) -> tuple[Tensor, Tensor, Tensor]:
    """Drop small boxes, and boxes that a better one of the same label overlaps.

    Returns:
        The best ``max_per_img``, or all candidates if fewer: boxes ``(N, K, 4)``,
        scores ``(N, K)``, descending, 0 if suppressed, and labels ``(N, K)``.
    """
    boxes, scores, labels = found
    if cfg.get("min_bbox_size", -1) >= 0:
        large = (boxes[..., 2:] - boxes[..., :2] > cfg.min_bbox_size).all(-1)
        scores = torch.where(large, scores, 0.0)
    apart = boxes
    if not cfg.nms.get("class_agnostic", False):
        # Move labels apart by as much as MMCV's batched_nms does: IoUs round alike.
        chosen = (scores > 0).unsqueeze(2)
        extent = torch.where(chosen, boxes, 0.0).amax((1, 2)) + 1
        apart = boxes + (labels * extent.unsqueeze(1)).unsqueeze(2)
    scores = nms(apart, scores, cfg.nms.iou_threshold, cfg.max_per_img)
    count = torch.sym_min(cfg.max_per_img, scores.shape[1])
    scores, index = scores.topk(count)
    boxes = boxes.gather(1, index.unsqueeze(2).expand(-1, -1, 4))
    return boxes, scores, labels.gather(1, index)


# A custom operator, since torchvision's takes one image and returns a number of indices
# that depends on the values, while ONNX's NonMaxSuppression takes a batch.
@torch.library.custom_op("ghostdet::nms", mutates_args=())
def nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, max_per_img: int
) -> Tensor:
    """Suppress boxes ``(N, M, 4)`` that overlap a better one in the same image.

    Boxes with a score of 0 take no part.

    Returns:
        Scores ``(N, M)``, 0 for all but the best ``max_per_img`` that are left.
    """
    kept = torch.zeros_like(scores)
    for index, (image_boxes, image_scores) in enumerate(zip(boxes, scores)):
        chosen = image_scores.nonzero()[:, 0]
        order = torchvision.ops.nms(
            image_boxes[chosen], image_scores[chosen], iou_threshold
        )
        order = chosen[order[:max_per_img]]
        kept[index, order] = image_scores[order]
    return kept


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, max_per_img: int) -> Tensor:
    return torch.empty_like(scores)


def check_supported(detector: nn.Module) -> None:
    """Raise a UserError that names the part which cannot be exported."""
    kind = type(detector)
    # Types, not subclasses: each of these may predict in another way.
    if type(detector.data_preprocessor) is not DetDataPreprocessor:
        _refuse(f"data_preprocessor {type(detector.data_preprocessor).__name__}")
    if kind.predict is SingleStageDetector.predict:
        head = detector.bbox_head
    elif kind.predict is TwoStageDetector.predict:
        _check_roi_head(detector.roi_head)
        head = detector.rpn_head
    else:
        _refuse(f"detector {kind.__name__}")
    _check_dense_head(head)


def _check_dense_head(head: nn.Module) -> None:
    kind = type(head)
    name = f"head {kind.__name__}"
    known = (BaseDenseHead, GFLHead, RPNHead)
    post_process = RPNHead if isinstance(head, RPNHead) else BaseDenseHead
    if (
        not isinstance(head, BaseDenseHead)
        or kind.predict_by_feat is not BaseDenseHead.predict_by_feat
        or kind._predict_by_feat_single
        not in [other._predict_by_feat_single for other in known]
        or kind._bbox_post_process is not post_process._bbox_post_process
        or not hasattr(head.prior_generator, "sparse_priors")
        or getattr(head.loss_cls, "custom_cls_channels", False)
    ):
        _refuse(name)
    _check_coder(head, name)
    if head.test_cfg.get("nms_pre", -1) < 1:
        _refuse(f"{name} without nms_pre (set test_cfg.nms_pre=1000, for example)")
    # In pixels of the image before it was resized, a size that the graph does not know.
    if not isinstance(head, RPNHead) and head.test_cfg.get("min_bbox_size", -1) > 0:
        _refuse(f"{name} with min_bbox_size (set test_cfg.min_bbox_size=0)")
    _check_nms(head.test_cfg)


def _check_roi_head(head: nn.Module) -> None:
    if type(head) is not StandardRoIHead or head.with_mask or head.with_shared_head:
        what = " with masks" * getattr(head, "with_mask", False)
        _refuse(f"roi_head {type(head).__name__}{what}")
    extractor, stage = head.bbox_roi_extractor, head.bbox_head
    if type(extractor) is not SingleRoIExtractor:
        _refuse(f"bbox_roi_extractor {type(extractor).__name__}")
    for layer in extractor.roi_layers:
        if type(layer) is not RoIAlign or layer.pool_mode != "avg":
            _refuse(f"bbox_roi_extractor with {layer}")
    kind = type(stage)
    if (
        kind._predict_by_feat_single is not BBoxHead._predict_by_feat_single
        or stage.custom_cls_channels
        or not (stage.with_cls and stage.with_reg)
    ):
        _refuse(f"bbox_head {kind.__name__}")
    _check_coder(stage, f"bbox_head {kind.__name__}")
    _check_nms(head.test_cfg)


def _check_coder(head: nn.Module, name: str) -> None:
    if type(head.bbox_coder) not in (DeltaXYWHBBoxCoder, DistancePointBBoxCoder):
        _refuse(f"{name} with bbox_coder {type(head.bbox_coder).__name__}")


def _check_nms(cfg: ConfigDict) -> None:
    known = {"type", "iou_threshold", "class_agnostic", "split_thr"}
    if cfg.nms.get("type", "nms") != "nms" or set(cfg.nms) - known:
        _refuse(f"nms={dict(cfg.nms)}")
    if cfg.max_per_img < 1:
        _refuse(f"max_per_img={cfg.max_per_img}")


def _refuse(what: str) -> None:
    raise UserError(f"{what} cannot be exported; ghostdet exports {SUPPORTED}")
