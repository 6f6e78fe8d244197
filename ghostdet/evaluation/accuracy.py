"""Compute top-k accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

from ghostdet.errors import ConfigError, UserError


@METRICS.register_module()
class Accuracy(BaseMetric):
    """Percentage of images whose class is among the k with the highest scores.

    Args:
        topk: One k or several.
        collect_device: See :class:`~mmengine.evaluator.BaseMetric`.
        prefix: See :class:`~mmengine.evaluator.BaseMetric`.

    Raises:
        ConfigError: If a k is not a positive integer, or exceeds the number of classes.

    Example:
        >>> import torch
        >>> metric = Accuracy(topk=(1, 2))
        >>> metric.process(None, [
        ...     dict(pred_score=torch.tensor([0.1, 0.3, 0.6]), gt_label=label)
        ...     for label in (2, 1, 0, 2)])
        >>> metric.evaluate(4)
        {'accuracy/top1': 50.0, 'accuracy/top2': 75.0}
    """

    default_prefix = "accuracy"

    def __init__(
        self,
        topk: int | Sequence[int] = (1, 5),
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        self.topk = tuple(topk) if isinstance(topk, Sequence) else (topk,)
        if not self.topk or not all(type(k) is int and k > 0 for k in self.topk):
            raise ConfigError(
                f"topk is {topk!r}, expected integers of 1 or more; correct "
                "val_evaluator.topk and test_evaluator.topk"
            )

    @BaseMetric.dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict | None) -> None:
        """Take the metadata of the dataset, with ``classes``."""
        self._dataset_meta = dataset_meta
        if dataset_meta and dataset_meta.get("classes"):
            self._check(len(dataset_meta["classes"]))

    def _check(self, classes: int) -> None:
        if max(self.topk) > classes:
            fitting = ",".join(str(k) for k in self.topk if k <= classes) or "1"
            raise ConfigError(
                f"topk of Accuracy is {self.topk}, and there are {classes} classes; "
                f"--cfg-options val_evaluator.topk={fitting} "
                f"test_evaluator.topk={fitting}"
            )

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Rank the right class of each image.

        Among equal scores the class with the lower number comes first, as in
        ``argmax``.

        Args:
            data_batch: Not used.
            data_samples: ``pred_score`` ``(num_classes,)`` and ``gt_label`` of each
                image.

        Raises:
            UserError: If a score is not finite.
        """
        for sample in data_samples:
            scores, label = sample["pred_score"], int(sample["gt_label"])
            self._check(len(scores))
            if not scores.isfinite().all():
                raise UserError(
                    f"the scores of {sample.get('img_path', 'an image')} are not "
                    "finite: the weights have diverged, or need more precision than "
                    "--amp"
                )
            before = (scores > scores[label]).sum()
            self.results.append(int(before + (scores[:label] == scores[label]).sum()))

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        """Compute ``top1`` and so on, in percent."""
        ranks = np.array(results)
        return {f"top{k}": float((ranks < k).mean() * 100) for k in self.topk}
