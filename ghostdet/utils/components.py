"""Find the components that a config names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def type_name(kind: str | type | None) -> str:
    """Give the name of a component from its ``type``, a name or a class.

    Args:
        kind: A name such as ``'mmengine.CheckpointHook'``, a class, or None.

    Returns:
        The name without its scope.

    Example:
        >>> type_name('mmengine.CheckpointHook'), type_name(dict)
        ('CheckpointHook', 'dict')
    """
    return getattr(kind, "__name__", str(kind)).rpartition(".")[2]


def is_classifier(config: Mapping[str, Any]) -> bool:
    """Tell whether a config has a classifier, by the type of its model.

    Args:
        config: A config, or its dict; nothing in it is executed.
    """
    return type_name(config["model"].get("type")) == "ImageClassifier"


def iter_datasets(cfg: dict, key: str = "dataset") -> Iterator[tuple[str, dict]]:
    """Iterate over the datasets in a config, inside their wrappers.

    Args:
        cfg: Configuration of a dataset or of a wrapper.
        key: Its place in the config.

    Yields:
        The dotted key and the configuration of each.
    """
    if "datasets" in cfg:
        for i, part in enumerate(cfg["datasets"]):
            yield from iter_datasets(part, f"{key}.datasets.{i}")
    elif "dataset" in cfg:
        yield from iter_datasets(cfg["dataset"], f"{key}.dataset")
    else:
        yield key, cfg


def iter_metrics(evaluator: Any, key: str) -> Iterator[tuple[str, dict]]:
    """The metrics in a configuration, out of lists and evaluators.

    Args:
        evaluator: Configuration of a metric, of several or of an evaluator of them.
        key: Its place in the config.

    Yields:
        The dotted key and the configuration of each.
    """
    if isinstance(evaluator, dict) and "metrics" in evaluator:
        yield from iter_metrics(evaluator["metrics"], f"{key}.metrics")
    elif isinstance(evaluator, dict):
        yield key, evaluator
    elif isinstance(evaluator, (list, tuple)):
        for i, part in enumerate(evaluator):
            yield from iter_metrics(part, f"{key}.{i}")
