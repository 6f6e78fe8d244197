"""What the tests plant into runs, imported by their configs."""

import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

import torch
from mmdet.models import GFL
from mmdet.registry import MODELS
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class AllReduce(torch.autograd.Function):
    """Sum over all ranks; so is its gradient."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        distributed.all_reduce(x)
        return x

    backward = forward


class CPUSyncBatchNorm(_BatchNorm):
    """SyncBN over gloo, in two passes, as exact as BN in one process."""

    def _check_input_dim(self, x):
        pass

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        dims, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
        count = AllReduce.apply(x.new_tensor(x.numel() / x.shape[1]))
        mean = AllReduce.apply(x.sum(dims)) / count
        centred = x - mean.view(shape)
        var = AllReduce.apply(centred.square().sum(dims)) / count
        self.num_batches_tracked.add_(1)
        share = self.momentum  # 0.0 in a recomputation
        if share is None:
            share = 1 / self.num_batches_tracked.item()
        with torch.no_grad():
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(var * count / (count - 1), share)
        y = centred * (var + self.eps).rsqrt().view(shape)
        return y * self.weight.view(shape) + self.bias.view(shape)


def double(model, sync):
    """Use double precision and, in a distributed run, SyncBN."""
    model.double()
    if sync and distributed.is_initialized():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.__class__ = CPUSyncBatchNorm


@MODELS.register_module()
class DoubleGFL(GFL):
    def __init__(self, sync=False, **kwargs):
        super().__init__(**kwargs)
        double(self, sync)

    def init_weights(self):
        """Begin with scores of 0.5, which a small learning rate keeps.

        GFL divides losses by the sum of scores, but at least by 1 on each rank; two
        ranks equal one where that bound is not reached.
        """
        super().init_weights()
        for name, parameter in self.bbox_head.named_parameters():
            if "gfl_cls" in name and name.endswith("bias"):
                nn.init.zeros_(parameter)


@HOOKS.register_module()
class Fault(Hook):
    """Does something bad on a rank before an iteration, once in spite of restarts."""

    def __init__(self, kind, rank=1, at=5):
        self.kind, self.rank, self.at = kind, rank, at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
        if get_rank() == self.rank and runner.iter + 1 == self.at and not restarts:
            getattr(self, self.kind)(runner)

    def kill(self, runner):
        os.kill(os.getpid(), signal.SIGKILL)

    def fail(self, runner):
        raise RuntimeError("planted failure")

    def kill_worker(self, runner):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    def terminate(self, runner):
        os.kill(os.getpid(), signal.SIGTERM)

    def terminate_all(self, runner):
        """As a cluster: all processes, workers too, and not by their parent."""
        pids = [os.getpid(), *(p.pid for p in multiprocessing.active_children())]
        subprocess.run(["kill", "-TERM", *map(str, pids)], check=True)

    def not_finite(self, runner):
        model = getattr(runner.model, "module", runner.model)
        model.backbone.register_forward_hook(
            lambda module, inputs, outputs: tuple(x * float("nan") for x in outputs)
        )


@HOOKS.register_module()
class Progress(Hook):
    """Writes down each iteration that is done."""

    priority = "LOWEST"

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        with open(Path(runner.work_dir, "progress"), "a") as file:
            print(runner.iter + 1, float(outputs["loss"]), file=file)
