"""The processes of a distributed run, on GPUs or on CPUs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.dist import (
    broadcast_object_list,
    get_rank,
    get_world_size,
    init_dist,
    is_distributed,
    is_main_process,
)
from mmengine.utils.dl_utils import set_multi_processing

from ghostdet.config import reason
from ghostdet.errors import UserError

T = TypeVar("T")

# Parts of gloo's messages when the process at the other end is gone.
_LOST = "Connection closed by peer", "Connection reset by peer"


def start_processes(cfg: Config) -> None:
    """Connect the processes that a launcher started.

    Args:
        cfg: The config, with ``launcher``. On CPUs the backend is gloo, and
            ``model_wrapper_cfg`` is set.

    Raises:
        UserError: If the launcher did not set a variable.
    """
    if cfg.launcher == "none" or is_distributed():
        return
    env = cfg.get("env_cfg") or {}
    settings = dict(env.get("dist_cfg") or {})
    # As the Runner, which warns if init_dist has chosen another start method.
    set_multi_processing(**(env.get("mp_cfg") or {}), distributed=True)
    try:
        if torch.cuda.is_available():
            # From the config of a run on CPUs.
            (cfg.get("model_wrapper_cfg") or {}).pop("device_ids", None)
            init_dist(cfg.launcher, **settings)
            return
        with patch("torch.cuda.set_device"):  # which MMEngine calls with any backend
            init_dist(cfg.launcher, **{**settings, "backend": "gloo"})
    except (KeyError, ValueError) as error:
        raise UserError(
            f"--launcher {cfg.launcher} needs a variable of the environment: "
            f"{reason(error)}; set it, or start the run by tools/dist_train.sh or "
            "tools/slurm_train.sh"
        ) from error
    cfg.model_wrapper_cfg = {
        "broadcast_buffers": False,
        "find_unused_parameters": cfg.get("find_unused_parameters", False),
        **(cfg.get("model_wrapper_cfg") or {}),
        "device_ids": None,  # MMEngine passes a GPU
    }


def heed_launcher() -> None:
    """Send SIGTERM to this process once its launcher is gone.

    The ranks of a killed torchrun would otherwise continue to train beside a new run.
    """
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def on_main_process(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function on rank 0 and return its result on all ranks.

    Raises:
        UserError: On rank 0, if the function raised it. The other ranks exit, so that
            the message is printed once.
    """
    result, error = None, None
    if is_main_process():
        try:
            result = function(*arguments)
        except UserError as raised:
            error = raised
    shared = [result, error is not None]
    broadcast_object_list(shared)
    if error is not None:
        raise error
    if shared[1]:
        sys.exit(1)
    return shared[0]


@contextmanager
def lost_ranks() -> Iterator[None]:
    """Turn the error of a rank that lost another one into a ``UserError``."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or any(
            text in str(error) for text in _LOST
        )
        if get_world_size() == 1 or not lost:
            raise
        raise UserError(
            f"rank {get_rank()} lost another rank; see that rank's own error above, "
            "or, if it was killed, torchrun's report below. --resume continues from "
            "the last checkpoint"
        ) from error
