"""Images through the pipeline of the paper's RetinaNet."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from ctypes.util import find_library
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import FUNCTIONS
from torchvision.io import ImageReadMode, decode_jpeg

from benchmarks.timing import take_turns
from ghostdet import CONFIGS
from ghostdet.config import load_config

if TYPE_CHECKING:
    from benchmarks.suites import Context, Table

IMAGES = 118_000  # of COCO's train2017, which has 860,001 boxes, to three digits
PROCESSES = 8  # ranks of the machine that the paper's table needs
POINTS = 24  # of a polygon; makes a file of the size of instances_train2017.json
PAPER = "retinanet_ghostnet_fpn.py"
RATE = 400  # images/s of eight GPUs: 12 epochs of 118,287 images in an hour


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
