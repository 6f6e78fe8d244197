"""Fixtures shared by all tests: datasets and a detector trained for four iterations."""

import functools
import gc
import os
import shutil
import subprocess
import sys
import threading
import traceback
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torch

from ghostdet.ops import ensure_mmcv_ops

ensure_mmcv_ops()  # before test modules import mmcv.ops

from coco_dataset import IN_PROCESS, write_cells, write_coco  # noqa: E402
from mmdet.visualization import DetLocalVisualizer  # noqa: E402
from mmengine.config import config as mmengine_config  # noqa: E402
from mmengine.logging import MessageHub, MMLogger  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from mmengine.visualization import Visualizer  # noqa: E402
from unchecked import train  # noqa: E402
from yapf.yapflib import yapf_api  # noqa: E402

from ghostdet.config import load_config  # noqa: E402
from ghostdet.datasets import Digits, prepare_trees  # noqa: E402
from ghostdet.datasets.prepare.trees import WHEEL_NAME  # noqa: E402
from ghostdet.errors import UserError  # noqa: E402

PROJECT = Path(__file__).parents[1]
CONFIG = PROJECT / "configs/bccd/retinanet_ghostnet_small_bccd.py"

# The smallest run that trains, saves twice and validates.
TINY = {
    "train_cfg.max_iters": 4,
    "train_cfg.val_interval": 4,
    "default_hooks.checkpoint.interval": 2,
    "default_hooks.checkpoint.max_keep_ckpts": -1,
    "train_dataloader.batch_size": 2,
    "model.test_cfg.score_thr": 0.0,  # an untrained detector scores low
    **{f"{part}_dataloader.dataset.indices": 4 for part in ("val", "test")},
    **IN_PROCESS,
}

# Small tensors gain nothing from threads, which wait for each other on busy cores.
torch.set_num_threads(1)

gc.freeze()  # MMEngine collects garbage for each dataset, through all imports

# MMEngine formats a config with yapf, for seconds, each time it logs or saves it.
format_code = yapf_api.FormatCode
formatted = {}


def format_once(text: str, **style) -> tuple[str, bool]:
    if text not in formatted:
        formatted[text] = format_code(text, **style)
    return formatted[text]


yapf_api.FormatCode = mmengine_config.FormatCode = format_once


def forget_runs():
    """Drop MMEngine's global instances, which the next run would otherwise reuse."""
    visualizers = Visualizer, DetLocalVisualizer
    for manager in (MMLogger, MessageHub, DefaultScope, *visualizers):
        manager._instance_dict.clear()


def real_data(name: str) -> Path:
    """Return a folder of real data, for tests marked ``data``."""
    folder = os.environ.get("GHOSTDET_TEST_DATA")
    if not folder:
        pytest.fail("set GHOSTDET_TEST_DATA to the folder of real data")
    return Path(folder, name)


@pytest.fixture(scope="session")
def new_run():
    """Return the function to call before another run in the same process."""
    return forget_runs


@pytest.fixture(scope="session")
def project() -> Path:
    return PROJECT


@pytest.fixture(scope="session")
def cells(tmp_path_factory) -> Path:
    """Drawn blood cells in the layout of the bccd configs; do not write into it."""
    counts = dict(train=12, val=6, test=6)
    return write_cells(tmp_path_factory.mktemp("cells"), counts)


@pytest.fixture(scope="session")
def coco(tmp_path_factory) -> Path:
    """Drawn blood cells in the layout of COCO 2017, with its 80 categories."""
    return write_coco(tmp_path_factory.mktemp("coco"), dict(train=12, val=6))


@pytest.fixture(scope="session")
def bccd() -> Path:
    return real_data("bccd")


@pytest.fixture(scope="session")
def mini_coco() -> Path:
    return real_data("mini_coco")


@pytest.fixture(scope="session")
def coco_eval() -> Path:
    return real_data("coco_eval")


@pytest.fixture(scope="session")
def trees_root(tmp_path_factory) -> Path:
    """The demo's dataset, from a wheel in the folder of real data or the demo's."""
    folders = (os.environ.get("GHOSTDET_TEST_DATA", ""), PROJECT / "data/trees")
    for folder in folders:
        for path in Path(folder).glob(WHEEL_NAME):
            root = tmp_path_factory.mktemp("trees")
            (root / path.name).symlink_to(path.resolve())
            return prepare_trees(root)
    pytest.skip("needs the DeepForest wheel: run `make demo` once, with a network")


@pytest.fixture
def own_cells(cells, tmp_path) -> Path:
    """A copy of the drawn cells that a test may damage."""
    return shutil.copytree(cells, tmp_path / "own")


@pytest.fixture
def digit_folders(tmp_path) -> Path:
    """The digits 0 to 3 in ImageNet's layout: six of each in train/, three in val/."""
    root = tmp_path / "digits"
    for part, count in (("train", 6), ("val", 3)):
        data = Digits(train=part == "train")
        labels = np.array(data.targets)
        for digit in range(4):
            folder = root / part / f"n{digit}"
            folder.mkdir(parents=True)
            for index in np.flatnonzero(labels == digit)[:count]:
                image = data[index]["inputs"].resize((48, 40))
                image.save(folder / f"{index}.JPEG")
    return root


@pytest.fixture
def tiny(request, tmp_path):
    """A function that loads the small config with options, on cells by default."""

    def load(options=None, data_root=None, work_dir=tmp_path / "run"):
        data_root = data_root or request.getfixturevalue("cells")
        forget_runs()
        return load_config(CONFIG, work_dir, data_root, {**TINY, **(options or {})})

    return load


@pytest.fixture(scope="session")
def trained(cells, tmp_path_factory) -> Path:
    """Work directory of a run of four iterations, with iter_2.pth and iter_4.pth."""
    work_dir = tmp_path_factory.mktemp("trained")
    forget_runs()
    train(load_config(CONFIG, work_dir, cells, TINY))
    return work_dir


@pytest.fixture
def failure():
    """A function that iterates over a DataLoader and returns its UserError."""

    def run(loader) -> UserError:
        try:
            list(loader)
        except UserError as err:
            # The frames keep the iterator alive in a cycle. Collected later, it waits
            # five seconds for each worker, as does every worker forked meanwhile.
            traceback.clear_frames(err.__traceback__)
            return err
        pytest.fail("no UserError")

    return run


@pytest.fixture
def command(tmp_path):
    """A function that runs Python in another process, as a shell would."""

    def run(*arguments, cwd=PROJECT):
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**env, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def address(tmp_path, monkeypatch):
    """The address of a server of ``tmp_path/served``, and that folder."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
