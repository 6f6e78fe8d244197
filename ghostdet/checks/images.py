"""Read the images of a dataset."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine import fileio
from tqdm import tqdm

from ghostdet.datasets.classification import ClassificationDataset
from ghostdet.datasets.transforms.loading import LoadReadableImage
from ghostdet.utils.files import list_folder


def _reader(
    dataset: Any, cfg: dict, paths: Sequence[str]
) -> tuple[Callable[[int], np.ndarray] | None, bool, LoadReadableImage | None]:
    """Return a function that reads an image, whether files are local, the loader."""
    if isinstance(dataset, ClassificationDataset):
        bare = DATASETS.build({**cfg, "pipeline": []})
        return lambda index: np.asarray(bare[index]["inputs"]), False, None
    steps = getattr(getattr(dataset, "pipeline", None), "transforms", [])
    load = next((s for s in steps if isinstance(s, LoadReadableImage)), None)
    if load is None or not paths:
        return None, False, None
    backend = fileio.get_file_backend(paths[0], backend_args=load.backend_args)
    return lambda i: load.read(paths[i]), isinstance(backend, fileio.LocalBackend), load


def read_images(
    dataset: Any,
    cfg: dict,
    paths: Sequence[str],
    infos: Sequence[dict],
    count: int | None,
    workers: int,
) -> tuple[LoadReadableImage | None, int, list[str], list[str], dict[bytes, str]]:
    """Look for images, and read ``count`` of them, evenly spread; None for all.

    Returns:
        The transform that loads them; the number read; those that cannot be read; those
        of another size than in ``infos``; and, if all were read, paths by checksums.
    """
    read, local, load = _reader(dataset, cfg, paths)
    there, broken, other, contents = [], [], [], {}
    listed = functools.cache(list_folder)
    for index, path in enumerate(paths):
        if not local or os.path.basename(path) in listed(os.path.dirname(path)):
            there.append(index)
        else:
            broken.append(f"{path} (no such file)")
    if read is None:
        there = []
    elif count is not None and count < len(there):
        there = np.array(there)[np.linspace(0, len(there) - 1, count).astype(int)]

    def look(index: int) -> tuple[tuple[int, ...] | None, bytes | str]:
        try:
            image = read(index)
        except Exception as error:  # decoders raise what they like
            return None, getattr(error, "text", str(error))
        pixels = np.ascontiguousarray(image) if count is None else b""
        return image.shape[1::-1], hashlib.blake2b(pixels).digest()

    hidden = None if count is None else True  # None: unless in a terminal
    with ThreadPool(workers) as pool:
        looked = pool.imap(look, there)
        looked = tqdm(looked, total=len(there), unit="image", disable=hidden)
        for index, (size, digest) in zip(there, looked):
            path, info = paths[index], infos[index] if infos else {}
            stated = (info["width"], info["height"]) if "width" in info else size
            if size is None:
                broken.append(digest if path in digest else f"{path} ({digest})")
            elif stated != size:
                other.append("{}: {}x{} px, not {}x{}".format(path, *size, *stated))
            elif count is None:
                contents[digest] = path
    return load, len(there), broken, other, contents
