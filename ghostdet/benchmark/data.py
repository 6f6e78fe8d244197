"""What COCO's size costs: annotations in memory, and images through the pipeline."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmdet.registry import DATASETS

from ghostdet.datasets import check_dataset

IMAGES = 118_000  # of COCO's train2017, which has 860,001 boxes, to three digits
PROCESSES = 8  # ranks of the machine that the paper's table needs
POINTS = 24  # of a polygon; makes a file of the size of instances_train2017.json


def write_annotations(file: Path, images: int = IMAGES, seed: int = 0) -> int:
    """Write COCO annotations with polygons, as many an image as in train2017.

    They are written image by image, so that the file may be larger than memory.

    Args:
        file: Where to.
        images: Number of images, of 640 by 480 px; 860/118 boxes each on average.
        seed: Of the random numbers. The same one gives the same file.

    Returns:
        The number of boxes.
    """
    from mmdet.datasets import CocoDataset

    rng = np.random.default_rng(seed)
    names = CocoDataset.METAINFO["classes"]
    count = rng.poisson(860 / 118, images)
    angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    circle = 0.5 + 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    number = 0
    with file.open("w") as out:
        categories = [dict(id=i, name=name) for i, name in enumerate(names, 1)]
        out.write(f'{{"categories": {json.dumps(categories)}, "images": [')
        out.write(
            ", ".join(
                json.dumps(
                    dict(id=i, file_name=f"{i:012}.jpg", width=640, height=480)
                )
                for i in range(1, images + 1)
            )
        )
        out.write('], "annotations": [')
        for image, boxes in enumerate(count, start=1):
            size = rng.uniform(10, 240, (boxes, 2)).round(2)
            corner = (rng.random((boxes, 2)) * ([640, 480] - size)).round(2)
            polygons = corner[:, None] + circle * size[:, None]
            for box, polygon in zip(np.hstack([corner, size]), polygons):
                annotation = dict(
                    segmentation=[polygon.round(2).flatten().tolist()],
                    area=float(box[2:].prod() * 0.7),
                    iscrowd=int(rng.random() < 0.01),
                    image_id=image,
                    bbox=box.tolist(),
                    category_id=int(rng.integers(1, len(names) + 1)),
                    id=(number := number + 1),
                )
                out.write((", " if number > 1 else "") + json.dumps(annotation))
        out.write("]}")
    return number


def measure(kind: str, root: str, processes: int = 1) -> dict[str, float]:
    """Load annotations in forked processes, and add up what that takes.

    To be called in a fresh process, of which the others are copies: what they all
    imported is counted in none.

    Args:
        kind: A data set's type, or ``check_dataset``.
        root: COCO's folder.
        processes: How many. As many as there are cores load at the same time.

    Returns:
        ``seconds`` of the slowest, ``peak`` of the largest, the ``sum`` of what stays,
        and the least that stays private, all in MB. Pages that processes share are
        counted once.
    """
    gc.collect()
    gc.freeze()  # or the children's collections would write to the parent's pages
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    loaded = context.Barrier(processes)
    cores = context.Semaphore(os.cpu_count() or 1)

    def run() -> None:
        try:
            results.put(load())
        except BaseException as error:
            loaded.abort()
            results.put(f"{type(error).__name__}: {error}")
            raise

    def load() -> dict[str, float]:
        loaded.wait()
        before = _memory()
        with cores:
            start = time.perf_counter()
            kept = _load(kind, root)
            seconds = time.perf_counter() - start
        loaded.wait()
        after = _memory()
        loaded.wait()
        del kept
        return dict(
            seconds=seconds,
            peak=after["peak"] - before["resident"],
            shared=after["shared"] - before["shared"],
            private=after["private"] - before["private"],
        )

    children = [context.Process(target=run) for _ in range(processes)]
    for child in children:
        child.start()
    found = [results.get() for _ in children]
    for child in children:
        child.join()
    for failure in filter(lambda child: isinstance(child, str), found):
        raise RuntimeError(f"{kind}: {failure}")
    return dict(
        seconds=max(child["seconds"] for child in found),
        peak=max(child["peak"] for child in found),
        sum=sum(child["shared"] for child in found),
        private=max(child["private"] for child in found),
    )


def _load(kind: str, root: str) -> Any:
    cfg = dict(
        type=kind,
        data_root=root,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[],
    )
    if kind == "check_dataset":
        # Images are said to lie elsewhere, or they would be looked for.
        elsewhere = dict(type="LoadImageFromFile", backend_args=dict(backend="local"))
        return check_dataset({**cfg, "type": "CocoDataset", "pipeline": [elsewhere]})
    dataset = DATASETS.build(cfg)
    dataset.data_bytes.max()  # as if every sample had been read
    return dataset


def _memory() -> dict[str, float]:
    """Of this process, in MB: resident, private, its share of what is shared, peak."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    size = {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines}
    return dict(
        resident=size["Rss"],
        shared=size["Pss"],
        private=size["Private_Clean"] + size["Private_Dirty"],
        peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    )
