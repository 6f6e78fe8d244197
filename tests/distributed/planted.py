"""What the tests plant into runs, imported by their configs."""

import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

from mmdet.models import GFL
from mmdet.registry import MODELS
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.nn.modules.batchnorm import _BatchNorm

from ghostdet.models import ImageClassifier


@MODELS.register_module()
class DoubleGFL(GFL):
    """In double precision, in which rounding does not grow to anything in 20 steps."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.double()


@MODELS.register_module()
class DoubleClassifier(ImageClassifier):
    """Likewise."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.double()

    def forward(self, inputs, data_samples=None, mode="tensor"):
        return super().forward(inputs.double(), data_samples, mode)


@HOOKS.register_module()
class FrozenNorms(Hook):
    """Keeps all BN layers as they are."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


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
