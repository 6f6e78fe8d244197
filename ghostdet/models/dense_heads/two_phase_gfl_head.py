"""TwoPhaseGFLHead, GFL's head that changes its assigner in training."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import GFLHead
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import Tensor

from ghostdet.errors import ConfigError


@MODELS.register_module()
class TwoPhaseGFLHead(GFLHead):
    """GFLHead that assigns by anchors first, then by predictions.

    Early predictions say little about which anchor fits an object, so ATSS assigns
    first and task-aligned assignment follows, as in TOOD (arXiv 2108.07755) and
    PicoDet. ``train_cfg`` has the names of MMDetection's TOODHead::

        train_cfg=dict(
            initial_assigner=dict(type="ATSSAssigner", topk=9),
            initial_iter=150,  # or initial_epoch
            assigner=dict(type="TaskAlignedAssigner", topk=13),
            alpha=1,  # exponents of score and IoU: TOOD's, and the defaults
            beta=6,
            allowed_border=-1,
            pos_weight=-1,
        )

    Without ``initial_assigner`` the head is GFLHead. The iteration or epoch is the
    Runner's, so a run resumes in the right phase. Losses and shapes do not change.

    Args:
        args: GFLHead's arguments.
        kwargs: GFLHead's arguments.

    Raises:
        ConfigError: If ``initial_assigner`` comes without a switch, or a switch without
            it. In the first loss, if the switch is beyond the end of training or an
            assigner needs what the head does not give it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cfg = self.train_cfg or {}
        switches = [key for key in ("initial_epoch", "initial_iter") if key in cfg]
        self.two_phases = "initial_assigner" in cfg
        if len(switches) != self.two_phases:
            raise ConfigError(
                f"train_cfg has {sorted(cfg)}, expected initial_assigner with either "
                "initial_epoch or initial_iter, or none of the three"
            )
        if cfg:
            self.assigner = _Phases(cfg, type(self).__name__)
        if self.two_phases:
            self.unit = switches[0].removeprefix("initial_")
            self.switch = cfg[switches[0]]
            self.tried = False

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list[InstanceData] | None = None,
    ) -> dict[str, list[Tensor]]:
        """Compute the losses; see GFLHead for shapes.

        The first call tries the second phase too, so that mistakes show at once.
        """
        loss, outputs = super().loss_by_feat, (cls_scores, bbox_preds)
        objects, ignored = batch_gt_instances, batch_gt_instances_ignore
        metas = batch_img_metas
        hub = MessageHub.get_current_instance()  # the Runner keeps its progress there
        if self.two_phases and not self.tried:
            self._check_switch(hub.get_info(f"max_{self.unit}s"))
            with torch.no_grad():
                loss(*outputs, objects, self._predict(*outputs, metas), ignored)
            self.tried = True
        if self.two_phases and hub.get_info(self.unit, 0) >= self.switch:
            metas = self._predict(*outputs, metas)
        return loss(*outputs, objects, metas, ignored)

    def _check_switch(self, end: int | None) -> None:
        if end is not None and self.switch >= end:
            raise ConfigError(
                f"initial_{self.unit} is {self.switch}, but training has {end} "
                f"{self.unit}(s); set it below {end}, or initial_iter where training "
                "has max_iters"
            )

    @torch.no_grad()
    def _predict(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], metas: list[dict]
    ) -> list[dict]:
        """Add ``predictions`` to the metainfo of each image.

        They hold ``scores (P, num_classes)`` and ``bboxes (P, 4)``, x1 y1 x2 y2 in
        pixels, of the anchors of all levels.
        """
        sizes = [scores.shape[-2:] for scores in cls_scores]
        priors = self.prior_generator.grid_priors(sizes, device=cls_scores[0].device)
        scores, boxes = [], []
        for logits, sides, anchors, (stride, _) in zip(
            cls_scores, bbox_preds, priors, self.prior_generator.strides
        ):
            scores.append(logits.permute(0, 2, 3, 1).flatten(1, 2).sigmoid())
            distances = self.integral(sides.permute(0, 2, 3, 1)) * stride
            centers = self.anchor_center(anchors).expand(len(metas), -1, -1)
            boxes.append(
                self.bbox_coder.decode(centers, distances.view(len(metas), -1, 4))
            )
        images = zip(metas, torch.cat(scores, 1), torch.cat(boxes, 1))
        return [
            {**meta, "predictions": InstanceData(scores=own, bboxes=bboxes)}
            for meta, own, bboxes in images
        ]

    def _get_targets_single(
        self,
        flat_anchors: Tensor,
        valid_flags: Tensor,
        num_level_anchors: list[int],
        gt_instances: InstanceData,
        img_meta: dict,
        *args: Any,
        **kwargs: Any,
    ) -> tuple:
        """Compute the targets of an image, with the assigner of the phase."""
        predictions = img_meta.get("predictions")
        if predictions is not None:
            predictions = predictions[
                anchor_inside_flags(
                    flat_anchors,
                    valid_flags,
                    img_meta["img_shape"][:2],
                    self.train_cfg["allowed_border"],
                )
            ]
        self.assigner.predictions = predictions
        return super()._get_targets_single(
            flat_anchors,
            valid_flags,
            num_level_anchors,
            gt_instances,
            img_meta,
            *args,
            **kwargs,
        )


class _Phases:
    """The assigners, called as GFLHead calls its one."""

    # The image's, in the second phase.
    predictions: InstanceData | None = None

    def __init__(self, cfg: ConfigDict, head: str) -> None:
        self.first = "initial_assigner" if "initial_assigner" in cfg else "assigner"
        keys = {self.first, "assigner"}
        self.assigners = {key: TASK_UTILS.build(cfg[key]) for key in keys}
        self.exponents = cfg.get("alpha", 1), cfg.get("beta", 6)
        self.head = head

    def assign(
        self,
        pred_instances: InstanceData,
        num_level_priors: list[int],
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
    ) -> AssignResult:
        """Assign by anchors, or as TOODHead does by predictions."""
        key = self.first if self.predictions is None else "assigner"
        assigner = self.assigners[key]
        try:
            if self.predictions is None:
                return assigner.assign(
                    pred_instances=pred_instances,
                    num_level_priors=num_level_priors,
                    gt_instances=gt_instances,
                    gt_instances_ignore=gt_instances_ignore,
                )
            pred_instances.scores = self.predictions.scores
            pred_instances.bboxes = self.predictions.bboxes
            return assigner.assign(
                pred_instances, gt_instances, gt_instances_ignore, *self.exponents
            )
        except (AssertionError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"{type(assigner).__name__} cannot be the {key} of {self.head} "
                f"({error}); set ATSSAssigner, which needs anchors alone, as "
                "initial_assigner or without a second phase, and "
                "TaskAlignedAssigner as assigner of the second phase"
            ) from error
