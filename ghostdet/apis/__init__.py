"""Train, test, infer."""

from ghostdet.apis.infer import infer, load_detector
from ghostdet.apis.model import load_model
from ghostdet.apis.test import test
from ghostdet.apis.train import train

__all__ = ["infer", "load_detector", "load_model", "test", "train"]
