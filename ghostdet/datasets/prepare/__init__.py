"""Bring a dataset into place: COCO 2017, and the demo's photographs of trees."""

from ghostdet.datasets.prepare.coco import prepare_coco
from ghostdet.datasets.prepare.trees import prepare_trees

__all__ = ["prepare_coco", "prepare_trees"]
