"""torchvision's classification data sets, for MMEngine's Runner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torchvision
from mmdet.registry import DATASETS, TRANSFORMS
from torchvision.transforms import v2


class _Classification:
    """What a data set of torchvision's lacks for MMEngine.

    A subclass gives ``(image, label)`` by its index, and has ``classes``.
    """

    classes: Sequence[str]

    @property
    def metainfo(self) -> dict[str, Any]:
        """What MMEngine stores with a checkpoint: ``classes``."""
        return dict(classes=tuple(self.classes))

    def path(self, index: int) -> str:
        """What an image is called in messages."""
        return f"{type(self).__name__} {index}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Give a sample.

        Args:
            index: Its number.

        Returns:
            ``inputs``, what the pipeline makes of the image, and ``data_samples`` with
            ``gt_label`` and ``img_path``.
        """
        image, label = super().__getitem__(index)
        return dict(
            inputs=image,
            data_samples=dict(gt_label=int(label), img_path=self.path(index)),
        )


def _transform(pipeline: Sequence[dict]) -> v2.Compose:
    return v2.Compose([TRANSFORMS.build(step) for step in pipeline])


@DATASETS.register_module()
class ImageFolder(_Classification, torchvision.datasets.ImageFolder):
    """A folder for each class, as of ImageNet: ``root/CLASS/**/*.JPEG``.

    Args:
        root: The folder of the folders.
        pipeline: Configs of transforms, as
            ``dict(type='torchvision.transforms.v2.CenterCrop', size=224)``.
    """

    def __init__(self, root: str, pipeline: Sequence[dict] = ()) -> None:
        super().__init__(root, _transform(pipeline))

    def path(self, index: int) -> str:
        """Where an image is."""
        return self.samples[index][0]


@DATASETS.register_module()
class CIFAR10(_Classification, torchvision.datasets.CIFAR10):
    """CIFAR-10, by torchvision: 50,000 images of 32x32 to train on, 10,000 to test.

    Args:
        root: Where it is, or is downloaded to.
        train: Images to train on, or those to test.
        pipeline: As of :class:`ImageFolder`.
        download: Download it if it is not there.
    """

    def __init__(
        self,
        root: str,
        train: bool = True,
        pipeline: Sequence[dict] = (),
        download: bool = False,
    ) -> None:
        super().__init__(root, train, _transform(pipeline), download=download)
