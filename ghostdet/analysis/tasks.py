"""What detectors and classifiers are judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ghostdet.analysis import paper
from ghostdet.utils.components import is_classifier

AP = "coco/bbox_mAP"  # what MMDetection calls COCO's AP


class Count(NamedTuple):
    """A column of what :func:`~ghostdet.analysis.complexity` counts."""

    heading: str
    take: Callable[[dict[str, Any]], Any]
    text: Callable[[Any], str]


@dataclass(frozen=True)
class Task:
    """How models of a kind are judged, and what is told of them beside that.

    Attributes:
        kind: What such a model is called.
        metrics: Names of metrics in the log, by column. The first is the one that is
            drawn and that the paper has.
        percent: A metric of the log times this is in percent.
        held_out: Title of the drawn metric's curves.
        paper: The paper's figures in percent, by config.
        papers: What the paper calls them.
        parts: Parts of the model that are counted.
        counts: What is counted, by its key in ``table.json``.
        counted: The same in words.
    """

    kind: str
    metrics: dict[str, str]
    percent: float
    held_out: str
    paper: dict[str, float]
    papers: str
    parts: tuple[str, ...]
    counts: dict[str, Count]
    counted: str

    @property
    def heading(self) -> str:
        """Column of the first metric."""
        return next(iter(self.metrics))

    @property
    def metric(self) -> str:
        """Name of the first metric in the log."""
        return self.metrics[self.heading]


def _params(value: int) -> str:
    return f"{value * 1e-6:.2f}M"


def _macs(value: int) -> str:
    return f"{value * 1e-6:.1f}M"


DETECTION = Task(
    kind="a detector",
    metrics={
        "AP": AP,
        "AP50": f"{AP}_50",
        "AP75": f"{AP}_75",
        "APs": f"{AP}_s",
        "APm": f"{AP}_m",
        "APl": f"{AP}_l",
    },
    percent=100,
    held_out="Held-out AP",
    paper=paper.COCO,
    papers="mAP",
    parts=("backbone",),
    counts={
        "params": Count(
            "backbone, params", lambda count: count["params"]["backbone"], _params
        ),
        "macs_224": Count(
            "backbone, MACs at 224x224",
            lambda count: count["backbone_macs_224"],
            _macs,
        ),
    },
    counted="the backbone up to its last tap",
)
CLASSIFICATION = Task(
    kind="a classifier",
    metrics={"top-1": "accuracy/top1", "top-5": "accuracy/top5"},
    percent=1,
    held_out="Held-out top-1, %",
    paper={name: top1 for name, (_, _, top1) in paper.CLASSIFIERS.items()},
    papers="top-1",
    parts=("backbone", "head"),
    counts={
        "shape": Count(
            "image",
            lambda count: count["shape"],
            lambda shape: "x".join(map(str, shape)),
        ),
        "params": Count("params", lambda count: count["params"]["total"], _params),
        "macs": Count("MACs", lambda count: count["macs"]["total"], _macs),
    },
    counted="the whole classifier, on images of the size it is evaluated on",
)


def task_of(config: Mapping[str, Any]) -> Task:
    """Tell by the type of its model what a config trains.

    Args:
        config: A config, or one as a dict, of which nothing is run.
    """
    return CLASSIFICATION if is_classifier(config) else DETECTION
