"""Starting processes, and what they tell each other."""

import signal
import socket
import subprocess
import sys
import threading

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import get_world_size

from ghostdet.engine import distributed
from ghostdet.engine.distributed import (
    heed_launcher,
    lost_ranks,
    on_main_process,
    start_processes,
)
from ghostdet.errors import UserError

# What each launcher sets, for one process.
LAUNCHERS = {
    "pytorch": dict(RANK=0, WORLD_SIZE=1, LOCAL_RANK=0),
    "slurm": dict(
        SLURM_PROCID=0, SLURM_NTASKS=1, SLURM_LOCALID=0, SLURM_NODELIST="localhost"
    ),
    "mpi": dict(
        OMPI_COMM_WORLD_RANK=0, OMPI_COMM_WORLD_SIZE=1, OMPI_COMM_WORLD_LOCAL_RANK=0
    ),
}
VARIABLES = "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"


@pytest.fixture
def environ(monkeypatch):
    """A function that sets variables; a group of processes is left at the end."""
    method = torch.multiprocessing.get_start_method(allow_none=True)
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)

    def update(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    yield update
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    torch.multiprocessing.set_start_method(method, force=True)


@pytest.fixture
def port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="MMEngine connects GPUs")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_processes_on_cpus(environ, port, launcher):
    cfg = Config(dict(launcher=launcher, env_cfg=dict(dist_cfg=dict(timeout=60))))
    cfg.model_wrapper_cfg = dict(static_graph=True)
    missing = dict(pytorch="RANK", slurm="SLURM_PROCID", mpi="MASTER_ADDR")[launcher]
    if launcher == "mpi":
        environ(**LAUNCHERS[launcher])
    with pytest.raises(UserError, match=f"needs a variable .*{missing}"):
        start_processes(cfg)
    if launcher == "pytorch":
        environ(**LAUNCHERS[launcher])
        with pytest.raises(UserError, match="needs a variable .*MASTER_ADDR"):
            start_processes(cfg)
    environ(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, **LAUNCHERS[launcher])
    start_processes(cfg)
    start_processes(cfg)  # no second time
    assert get_world_size() == 1 and torch.distributed.get_backend() == "gloo"
    assert cfg.model_wrapper_cfg.device_ids is None
    assert cfg.model_wrapper_cfg.static_graph


def test_processes_on_gpus(monkeypatch):
    """They are MMEngine's matter; the wrapper of a run on CPUs gets a device."""
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        distributed, "init_dist", lambda *args, **kwargs: calls.append((args, kwargs))
    )
    wrapper = dict(device_ids=None, static_graph=True)
    dist = dict(dist_cfg=dict(backend="nccl"))
    cfg = Config(dict(launcher="slurm", env_cfg=dist, model_wrapper_cfg=wrapper))
    start_processes(cfg)
    assert calls == [(("slurm",), dict(backend="nccl"))]
    assert cfg.model_wrapper_cfg == dict(static_graph=True)


def test_ranks_end_with_their_launcher(monkeypatch):
    parents = iter([7, 7, 1])
    monkeypatch.setattr("os.getppid", lambda: next(parents))
    monkeypatch.setattr("time.sleep", lambda _: None)
    sent = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: sent.set())
    heed_launcher()
    assert sent.wait(10)
    signal.signal(signal.SIGTERM, before)


def test_on_main_process():
    assert on_main_process(max, 1, 2) == 2

    def fail():
        raise UserError("once")

    with pytest.raises(UserError, match="once"):
        on_main_process(fail)


def test_on_another_process(monkeypatch):
    sent = [3, False]  # by rank 0

    def receive(shared):
        shared[:] = sent

    monkeypatch.setattr(distributed, "is_main_process", lambda: False)
    monkeypatch.setattr(distributed, "broadcast_object_list", receive)
    assert on_main_process(None) == 3
    sent = [None, True]
    with pytest.raises(SystemExit, match="1"):
        on_main_process(None)


@pytest.mark.parametrize("ranks, message", [(1, "Connection"), (2, "a bug")])
def test_errors_that_do_not_come_from_another_rank(monkeypatch, ranks, message):
    monkeypatch.setattr(distributed, "get_world_size", lambda: ranks)
    with pytest.raises(RuntimeError, match=message), lost_ranks():
        raise RuntimeError(f"{message} closed by peer" if ranks == 1 else message)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("[gloo] Connection closed by peer"), torch.distributed.DistError()],
)
def test_lost_ranks(monkeypatch, error):
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    with pytest.raises(UserError, match="rank 0 lost another rank"), lost_ranks():
        raise error


WITHOUT_UNIX = """
import signal, sys
sys.modules["fcntl"] = None
for name in ("sigwaitinfo", "sigtimedwait", "pthread_sigmask"):
    delattr(signal, name)
import ghostdet
from ghostdet.engine.loops import heed_parent
heed_parent(0, 1)
"""


def test_import_without_what_other_systems_lack():
    subprocess.run([sys.executable, "-c", WITHOUT_UNIX], check=True)
