"""Load images through the pipeline of the paper's RetinaNet."""

from __future__ import annotations

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

from ghostdet import CONFIGS
from ghostdet.config import load_config

if TYPE_CHECKING:
    from benchmarks.suites import Context, Table

PAPER = "retinanet_ghostnet_fpn.py"


def loading(context: Context) -> Table:
    """Run the training pipeline of the paper's configs, in one process."""
    config = loading_config(context.data_root).train_dataloader.dataset
    datasets = {}
    for decoder in decoders():
        datasets[decoder] = DATASETS.build(config)
        load = datasets[decoder].pipeline.transforms[0]
        if decoder == "torchcodec":
            load.read = read_with_torchcodec
        else:
            load.imdecode_backend = decoder
    images = min(64, len(datasets["cv2"]))

    def run(dataset) -> None:
        for index in range(images):
            dataset.pipeline(dataset.get_data_info(index))

    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)  # as DataLoader and MMEngine do in workers
    cv2.setNumThreads(0)
    try:
        return context.table(
            f"Loading {images} images for training, 1333x800",
            {name: partial(run, dataset) for name, dataset in datasets.items()},
            "cv2",
            note=f"The pipeline of `{PAPER}` in one process with one thread, as in "
            "a worker, on images in the page cache, by decoder. To train 12 epochs "
            "of COCO in an hour, all workers together load 400 images/s.",
            rounds=max(2, context.rounds // 2),
        )
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def decoders() -> list[str]:
    """List the decoders that are installed, ``cv2`` among them."""
    turbo = find_spec("turbojpeg") and find_library("turbojpeg")
    found = {"torchcodec": find_spec("torchcodec"), "turbojpeg": turbo}
    return ["cv2", *(name for name, there in found.items() if there)]


def read_with_torchcodec(path: str) -> np.ndarray:
    """Read a valid JPEG file in colour, as ``LoadReadableImage.read`` does."""
    from torchcodec.decoders import decode_jpeg

    image = decode_jpeg(path).permute(1, 2, 0).contiguous().numpy()
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=image)


def loading_config(data_root: Path) -> Config:
    """Load the paper's config with the dataset in ``data_root``."""
    return load_config(f"{CONFIGS}/{PAPER}", data_root=str(data_root))
