"""Processes of a distributed run, on GPUs or on CPUs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from mmengine.config import Config
from mmengine.dist import (
    broadcast_object_list,
    init_dist,
    is_distributed,
    is_main_process,
)
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from ghostdet.errors import UserError

T = TypeVar("T")

_WRAPPER = "mmengine.CPUDistributedDataParallel"


def start_processes(cfg: Config) -> None:
    """Connect the processes that a launcher started.

    MMEngine's Runner would do so on GPUs. On CPUs it stops: it sets a CUDA device
    whatever the backend is.

    Args:
        cfg: The config, with ``launcher``. On CPUs the backend is gloo, and
            ``model_wrapper_cfg`` is set.
    """
    if cfg.launcher == "none" or is_distributed():
        return
    if (
        os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    ):
        print_log(
            "torchrun may hang when it starts a run again; set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, as tools/dist_train.sh does",
            logger="current",
            level=logging.WARNING,
        )
    settings = dict(cfg.env_cfg.get("dist_cfg") or {}) if "env_cfg" in cfg else {}
    if torch.cuda.is_available():
        if (cfg.get("model_wrapper_cfg") or {}).get("type") == _WRAPPER:
            cfg.model_wrapper_cfg = None  # of a config that a run on CPUs has written
        init_dist(cfg.launcher, **settings)
        return
    variables = {
        "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
        "mpi": (
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_SIZE",
            "OMPI_COMM_WORLD_LOCAL_RANK",
        ),
    }.get(cfg.launcher, ())
    for name, variable in zip(("RANK", "WORLD_SIZE", "LOCAL_RANK"), variables):
        os.environ.setdefault(name, os.environ[variable])
    os.environ.setdefault("MASTER_PORT", "29500")
    if "MASTER_ADDR" not in os.environ:
        raise UserError(
            "the variable MASTER_ADDR is not set, by which processes on CPUs find each "
            "other; give it the name of the first machine"
        )
    seconds = settings.get("timeout")
    torch.distributed.init_process_group(
        "gloo", timeout=timedelta(seconds=seconds) if seconds else None
    )
    cfg.model_wrapper_cfg = dict(
        type=_WRAPPER,
        find_unused_parameters=cfg.get("find_unused_parameters", False),
    )


def restarted() -> bool:
    """Whether torchrun started this process again, after a rank had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def on_main_process(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function on rank 0 and give all ranks what it returns.

    Args:
        function: What to call.
        arguments: Its arguments.

    Returns:
        What it returned.

    Raises:
        UserError: On rank 0, if the function raised that; the other ranks exit, so that
            the message is printed once.
    """
    result: list[Any] = [None, None]
    error = None
    if is_main_process():
        try:
            result[0] = function(*arguments)
        except UserError as raised:
            result[1] = error = raised
    result[1] = result[1] is not None
    broadcast_object_list(result)
    if error is not None:
        raise error
    if result[1]:
        sys.exit(1)
    return result[0]


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """``MMDistributedDataParallel`` on CPUs, SyncBN included.

    Args:
        module: The model. Its ``nn.SyncBatchNorm``, as of the config's
            ``sync_bn='torch'``, become :class:`CPUSyncBatchNorm`.
        device_ids: Of no use here.
        find_unused_parameters: As of ``DistributedDataParallel``.
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: list[int] | None = None,
        find_unused_parameters: bool = False,
    ) -> None:
        for layer in module.modules():
            if type(layer) is nn.SyncBatchNorm:
                layer.__class__ = CPUSyncBatchNorm
        super().__init__(
            module,
            broadcast_buffers=False,
            find_unused_parameters=find_unused_parameters,
        )


class CPUSyncBatchNorm(_BatchNorm):
    """SyncBN where PyTorch has none: on CPUs, over gloo.

    Statistics in two passes, of the mean and of the deviations from it, so that they
    are as exact as those of one process.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, ...) by the statistics of all ranks."""
        if not self.training:
            return super().forward(x)
        dims = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        count = all_reduce(x.new_tensor(x.numel() / x.shape[1]))
        mean = all_reduce(x.sum(dims)) / count
        centred = x - mean.view(shape)
        var = all_reduce(centred.square().sum(dims)) / count
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)
            share = self.momentum or 1 / self.num_batches_tracked.item()
            with torch.no_grad():
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(var * count / (count - 1), share)
        y = centred * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y
