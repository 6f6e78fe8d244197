"""COCO's metrics in compiled code."""

from __future__ import annotations

import gc
from functools import cache
from types import FunctionType
from typing import Any

from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.fileio import dump
from pycocotools.cocoeval import COCOeval

from ghostdet.errors import UserError


@METRICS.register_module()
class FastCocoMetric(CocoMetric):
    """COCO's metrics by ``faster-coco-eval``, equal to pycocotools' and faster.

    MMDetection's :class:`~mmdet.evaluation.CocoMetric` with its arguments, results and
    messages. Only the classes of pycocotools that it calls are others, and results
    that no ``outfile_prefix`` asks for as files stay in memory. ``use_mp_eval`` changes
    nothing: there is one process, and it is faster.

    In a config or on the command line, the type is all that changes::

        --cfg-options test_evaluator.type=FastCocoMetric

    Args:
        ann_file: Annotations, as of ``CocoMetric``; those of the data set by default.
        **kwargs: Other arguments of ``CocoMetric``.

    Raises:
        UserError: If ``faster-coco-eval`` is not installed, or images are not numbered,
            which it expects.
    """

    def __init__(self, ann_file: str | None = None, **kwargs: Any) -> None:
        self._names = _faster_coco_eval()
        super().__init__(ann_file, **kwargs)
        if self._coco_api is not None:
            self._coco_api = self._names["COCO"](self._coco_api.dataset)
        self._dumped: dict[str, list[dict]] = {}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics of processed results, as ``CocoMetric`` does.

        Args:
            results: Ground truth and detections of each image.

        Returns:
            The metrics, such as ``bbox_mAP``; none where nothing was detected.
        """
        names = {**self._names, "load": self._dumped.get}
        collecting = gc.isenabled()
        gc.disable()  # it would look through a dict a detection again and again
        try:
            return _with(CocoMetric.compute_metrics, names)(self, results)
        finally:
            self._dumped.clear()
            if collecting:
                gc.enable()

    def results2json(self, results: list[dict], outfile_prefix: str) -> dict[str, str]:
        """Keep detections in COCO's results format, and write them if asked to.

        Args:
            results: Detections of each image.
            outfile_prefix: Beginning of the files' names.

        Returns:
            The names of the files by metric.
        """
        method = _with(CocoMetric.results2json, {"dump": self._dump})
        return method(self, results, outfile_prefix)

    def _dump(self, results: list[dict], file: str) -> None:
        self._dumped[file] = results
        if self.outfile_prefix is not None:
            dump(results, file)


def _with(function: FunctionType, names: dict[str, Any]) -> FunctionType:
    """A function that finds other globals under these names than where it is from."""
    return FunctionType(function.__code__, {**function.__globals__, **names})


@cache
def _faster_coco_eval() -> dict[str, type]:
    """Its classes by the names of those of pycocotools that ``CocoMetric`` uses."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ModuleNotFoundError as error:
        raise UserError(
            'FastCocoMetric needs faster-coco-eval; type pip install "ghostdet[eval]", '
            "or evaluate with type='CocoMetric'"
        ) from error

    class Annotations(COCO):
        def createIndex(self) -> None:
            for image in self.dataset.get("images", []):
                if not isinstance(image["id"], int):
                    raise UserError(
                        f"FastCocoMetric needs numbers as ids of images, and there is "
                        f"{image['id']!r}; evaluate with type='CocoMetric'"
                    )
            super().createIndex()

        def loadRes(self, results: list[dict]) -> COCO:
            results[0]  # CocoMetric waits for pycocotools' IndexError
            return super().loadRes(results)

    class Evaluation(COCOeval_faster):
        # Its own has AP at the highest number of detections; pycocotools has it at 100.
        summarize = COCOeval.summarize

    return dict(COCO=Annotations, COCOeval=Evaluation, COCOevalMP=Evaluation)
