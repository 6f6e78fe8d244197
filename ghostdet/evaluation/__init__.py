"""Metrics, registered in MMDetection's ``METRICS``."""

from ghostdet.evaluation.accuracy import Accuracy
from ghostdet.evaluation.fast_coco_metric import FastCocoMetric

__all__ = ["Accuracy", "FastCocoMetric"]
