"""scikit-learn's handwritten digits: real images without a download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.dataset import Compose
from PIL import Image

from ghostdet.datasets.classification import ClassificationDataset
from ghostdet.errors import UserError


class _Images:
    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.images[index]), self.targets[index]

    def __len__(self) -> int:
        return len(self.targets)


@DATASETS.register_module()
class Digits(ClassificationDataset, _Images):
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels.

    A shuffle with a fixed seed holds out a fifth of each digit, 360 in all.

    Args:
        train: Whether to use the 1,437 digits to train on, or the held-out ones.
        pipeline: Configs of transforms, which get a PIL image in RGB.

    Raises:
        UserError: If scikit-learn is not installed.

    Example:
        >>> data = Digits(train=False, pipeline=[
        ...     dict(type='torchvision.transforms.v2.PILToTensor')])
        >>> len(data), data[0]['inputs'].shape
        (360, torch.Size([3, 8, 8]))
    """

    classes = tuple("0123456789")

    def __init__(self, train: bool = True, pipeline: Sequence[dict] = ()) -> None:
        self.train = train
        self.transform = Compose(pipeline)
        try:
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split
        except ImportError as error:
            raise UserError(
                "the digits come with scikit-learn; pip install scikit-learn"
            ) from error
        digits = load_digits()
        parts = train_test_split(
            np.arange(len(digits.target)),
            test_size=0.2,
            random_state=0,
            stratify=digits.target,
        )
        chosen = parts[0 if train else 1]
        self.targets = digits.target[chosen].tolist()
        self.images = [
            Image.fromarray((image * (255 / 16)).astype(np.uint8)).convert("RGB")
            for image in digits.images[chosen]
        ]
