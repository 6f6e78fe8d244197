"""What COCO's size costs: annotations in memory, and images through the pipeline."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from ctypes.util import find_library
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import FUNCTIONS, init_default_scope
from torchvision.io import ImageReadMode, decode_jpeg

from ghostdet import CONFIGS
from ghostdet.datasets import check_dataset
from ghostdet.engine import load_config

from .timing import take_turns

if TYPE_CHECKING:
    from .suites import Context, Table

IMAGES = 118_000  # of COCO's train2017, which has 860,001 boxes, to three digits
PROCESSES = 8  # ranks of the machine that the paper's table needs
POINTS = 24  # of a polygon; makes a file of the size of instances_train2017.json
PAPER = "retinanet_ghostnet_fpn.py"
RATE = 400  # images/s of eight GPUs: 12 epochs of 118,287 images in an hour


def annotations(context: Context, images: int = IMAGES) -> list[Table]:
    """Loading annotations of COCO's size."""
    columns = ["processes", "seconds", "peak, MB", "kept by all, MB"]
    columns += ["private to one, MB"]
    rows = []
    fresh = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, fresh, _use_cache, (folder,)) as pool,
    ):
        root = Path(folder, "coco")
        (root / "annotations").mkdir(parents=True)
        (root / "train2017").mkdir()
        file = root / "annotations/instances_train2017.json"
        boxes = write_annotations(file, images)
        size = file.stat().st_size / 1e6
        for name, kind, processes in (
            ("CocoDataset", "CocoDataset", 1),
            ("SharedCocoDataset, the first time", "SharedCocoDataset", 1),
            ("SharedCocoDataset, from the cache", "SharedCocoDataset", PROCESSES),
            ("our check before a run", "check_dataset", 1),
        ):
            found = pool.submit(measure, kind, str(root), processes).result()
            values = [found[key] for key in ("seconds", "peak", "sum", "private")]
            rows.append([name, [processes, *values]])
    return [
        dict(
            title="Annotations of COCO's size",
            note=f"A generated file, {images:,} images, {boxes:,} boxes with polygons "
            f"of {POINTS} points, {size:,.0f} MB. Memory is what loading adds to "
            "processes that have imported everything: at most in one of them, what all "
            "keep, with shared pages counted once, and what no other shares with one. "
            "Every sample has been read. Seconds are those of the slowest process. The "
            "check does not look for images here.",
            columns=columns,
            rows=rows,
        )
    ]


def _use_cache(folder: str) -> None:
    os.environ["XDG_CACHE_HOME"] = folder
    init_default_scope("mmdet")


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
                json.dumps(dict(id=i, file_name=f"{i:012}.jpg", width=640, height=480))
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


def loading(context: Context) -> list[Table]:
    """The training pipeline of the paper's configs, in one process."""
    config = loading_config(context.data_root).train_dataloader.dataset
    datasets = {}
    for decoder in decoders():
        datasets[decoder] = DATASETS.build(config)
        load = datasets[decoder].pipeline.transforms[0]
        if decoder == "torchvision":
            load.read = _read_with_torchvision
        else:
            load.imdecode_backend = decoder
    images = min(64, len(datasets["cv2"]))
    collate = FUNCTIONS.get("pseudo_collate")
    spent: dict[str, dict[str, list[float]]] = {
        name: defaultdict(list) for name in datasets
    }

    def run(name: str) -> None:
        dataset, seconds = datasets[name], defaultdict(float)
        batch = []
        for index in range(images):
            start = time.perf_counter()
            sample = dataset.get_data_info(index)
            seconds["annotations"] += time.perf_counter() - start
            for transform in dataset.pipeline.transforms:
                start = time.perf_counter()
                sample = transform(sample)
                seconds[type(transform).__name__] += time.perf_counter() - start
            batch.append(sample)
            if len(batch) == 2:
                start = time.perf_counter()
                collate(batch)
                seconds["collate"] += time.perf_counter() - start
                batch = []
        for part, value in seconds.items():
            spent[name][part].append(value)

    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)  # as DataLoader and MMEngine do in workers
    cv2.setNumThreads(0)
    try:
        runs = {name: partial(run, name) for name in datasets}
        times = take_turns(runs, max(2, context.rounds // 2))
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    rates = {
        name: images / statistics.median(values) * 1e3 for name, values in times.items()
    }
    parts = {
        name: {part: statistics.median(v) / images * 1e3 for part, v in found.items()}
        for name, found in spent.items()
    }
    return [
        dict(
            title="Loading for training, 1333x800",
            note=f"The pipeline of `{PAPER}` in one process with one thread, as in a "
            f"worker, on {images} images that are in the page cache. Cores are those "
            f"that feed eight GPUs at {RATE} images/s in all, at which 12 epochs of "
            "COCO take an hour.",
            columns=["ms an image", "images/s and core", f"cores for {RATE} images/s"],
            rows=[
                [name, [1e3 / rate, rate, RATE / rate]] for name, rate in rates.items()
            ],
        ),
        dict(
            title="Where loading spends its time",
            note="ms an image, and the share.",
            columns=[x for name in parts for x in (f"{name}, ms", "%")],
            rows=[
                [
                    part,
                    [
                        x
                        for found in parts.values()
                        for x in (found[part], 100 * found[part] / sum(found.values()))
                    ],
                ]
                for part in parts["cv2"]
            ],
        ),
    ]


def decoders() -> list[str]:
    """Decoders that are installed, ``cv2`` among them."""
    turbo = find_spec("turbojpeg") and find_library("turbojpeg")
    return ["cv2", "torchvision", *(["turbojpeg"] if turbo else [])]


def _read_with_torchvision(path: str) -> np.ndarray:
    """What ``LoadReadableImage.read`` gives for a whole JPEG file in colour."""
    with open(path, "rb") as file:
        data = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    image = decode_jpeg(data, ImageReadMode.RGB, apply_exif_orientation=True)
    image = image.permute(1, 2, 0).contiguous().numpy()
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=image)


def loading_config(data_root: Path) -> Config:
    """The paper's config with its data set in ``data_root``."""
    return load_config(f"{CONFIGS}/{PAPER}", data_root=str(data_root))
