"""A check of a classification dataset."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from mmdet.registry import DATASETS
from mmengine.dataset import Compose
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import is_image_file
from tqdm import tqdm

from ghostdet.checks.findings import Finding
from ghostdet.datasets.classification import ClassificationDataset, ImageFolder
from ghostdet.errors import ConfigError, UserError
from ghostdet.utils.text import shorten


@dataclass
class ClassificationCheck:
    """A check of a :class:`ClassificationDataset`, which says itself what it lacks.

    Args:
        cfg: Its configuration.
        key: Its place in the config, for remedies.

    Attributes:
        dataset: The dataset, which gives PIL images.
        unreadable: Images that were found to be broken.
        contents: Checksum of the pixels of each image that was read, by path.

    Raises:
        UserError: If it is not there or not as it should be.
        ConfigError: If the configuration does not fit it.
    """

    same_classes: ClassVar[str] = (
        "Labels are numbers of the sorted names: let all have the same folders"
    )

    known: ClassVar[bool] = True  # all is, once it is built

    cfg: dict
    key: str = "dataset"
    dataset: ClassificationDataset = field(init=False)
    unreadable: set[str] = field(init=False, default_factory=set)
    contents: dict[str, bytes] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self.dataset = DATASETS.build({**self.cfg, "pipeline": []})
        except UserError:
            raise
        except Exception as error:  # constructors raise what they like
            raise ConfigError(
                f"the dataset cannot be built: {error}; correct {self.key} in the "
                "config, or with --cfg-options"
            ) from error

    def __len__(self) -> int:
        """The number of images."""
        return len(self.dataset.targets)

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in their order."""
        return self.dataset.classes

    @property
    def source(self) -> str:
        """Name of the dataset, in messages."""
        return self.dataset.source

    def elsewhere(self, part: str) -> str:
        """Options that give a part other images."""
        folder = isinstance(self.dataset, ImageFolder)
        return f"{self.key}.{'root=DIR' if folder else 'train=False'}"

    def paths(self) -> list[str]:
        """Names of the images, in messages."""
        return list(map(self.dataset.path, range(len(self))))

    def samples(self) -> list[dict]:
        """Some images for a pipeline, evenly spread."""
        chosen = _spread(len(self), 8)
        samples = [dict(img_path=self.dataset.path(i), index=i) for i in chosen]
        return [s for s in samples if s["img_path"] not in self.unreadable]

    def compose(self, pipeline: Sequence[dict]) -> Callable[[dict], dict[str, Any]]:
        """Build a pipeline that takes :meth:`samples`.

        Args:
            pipeline: Configs of transforms.

        Returns:
            A function of a sample. It raises ``UserError`` if the image cannot be read
            or does not become a tensor of the same shape as the others.
        """
        transform = Compose(pipeline)
        shapes: list[tuple] = []

        def run(sample: dict) -> dict[str, Any]:
            image = transform(self.dataset[sample["index"]]["inputs"])
            if not isinstance(image, torch.Tensor):
                raise UserError(
                    f"{self.key}.pipeline gives a {type(image).__name__}, expected a "
                    "tensor; end it with "
                    "dict(type='torchvision.transforms.v2.PILToTensor')"
                )
            shapes.append(tuple(image.shape))
            if shapes[-1] != shapes[0]:
                raise UserError(
                    f"{self.key}.pipeline gives images of different shapes, "
                    f"{shapes[0]} and {shapes[-1]}, which make no batch; add "
                    "dict(type='torchvision.transforms.v2.CenterCrop', size=224)"
                )
            return dict(inputs=image)

        return run

    def findings(
        self, images: int | None = 0, workers: int = 0, hashed: bool = False
    ) -> Iterator[Finding]:
        """Check classes and images.

        Args:
            images: How many images to read, evenly spread; None for all.
            workers: Processes that read them, with a progress bar; 0 for this one.
            hashed: Fill ``contents``.

        Yields:
            What was found. The checks are ``classes`` and ``images``.
        """
        counts = np.bincount(self.dataset.targets, minlength=len(self.classes))
        least, most = f"{min(counts):,}", f"{max(counts):,}"
        each = most if least == most else f"{least} to {most}"
        if len(counts) > 1:
            text = f"{len(counts):,}, of {each} images each: {shorten(self.classes)}"
            yield Finding("classes", "pass", text)
        else:
            yield Finding(
                "classes",
                "warn",
                f"{self.source}: one class, {self.classes[0]}: there is nothing to "
                "tell apart",
                "Add images of others, in a folder for each",
            )
        if isinstance(self.dataset, ImageFolder):
            yield from self._strays()
        chosen = _spread(len(self), images)
        broken = {}
        for index, why, content in _read(self.dataset, chosen, workers, hashed):
            if why:
                broken[self.dataset.path(index)] = why
            elif hashed:
                self.contents[self.dataset.path(index)] = content
        self.unreadable.update(broken)
        if broken:
            yield Finding(
                "images",
                "fail",
                "\n".join(
                    [
                        f"{len(broken):,} of {len(chosen):,} images that were read are "
                        "broken, such as",
                        *list(broken.values())[:3],
                    ]
                ),
            )
            return
        looked = "not opened" if not chosen else "read"
        if 0 < len(chosen) < len(self):
            looked = f"{len(chosen):,} of them read"
        yield Finding("images", "pass", f"{self.source}: {len(self):,}, {looked}")

    def _strays(self) -> Iterator[Finding]:
        """Images beside the folders of classes, which belong to none."""
        root = self.dataset.root
        images = filter(is_image_file, os.listdir(root))
        strays = sorted(set(images).difference(self.classes))
        if strays:
            yield Finding(
                "images",
                "warn",
                f"{root}: {len(strays):,} image{'s' * (len(strays) > 1)} beside the "
                f"folders of classes, not used, as {strays[0]}",
                "Move them into the folders of their classes, or away",
            )


def _spread(length: int, count: int | None) -> list[int]:
    """At most that many indices, evenly spread; None for all."""
    count = length if count is None else min(count, length)
    return np.linspace(0, length - 1, count).astype(int).tolist()


def _read(
    dataset: ClassificationDataset, chosen: list[int], workers: int, hashed: bool
) -> Iterator[tuple[int, str, bytes]]:
    """Read images: of each its index, what is wrong with it, and its checksum."""
    loader = DataLoader(
        _Read(dataset, chosen, hashed),
        batch_size=max(1, min(64, len(chosen) // (4 * (workers or 1)))),
        num_workers=workers,
        collate_fn=list,
    )
    with tqdm(
        total=len(chosen),
        desc="images",
        unit="image",
        disable=None if workers else True,  # where no one looks
    ) as bar:
        for batch in loader:
            yield from batch
            bar.update(len(batch))


@dataclass
class _Read(Dataset):
    dataset: ClassificationDataset
    chosen: list[int]
    hashed: bool

    def __getitem__(self, i: int) -> tuple[int, str, bytes]:
        index = self.chosen[i]
        try:
            image = np.asarray(self.dataset[index]["inputs"])
        except UserError as error:
            return index, error.text, b""
        content = b""
        if self.hashed:
            content = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        return index, "", content

    def __len__(self) -> int:
        return len(self.chosen)
