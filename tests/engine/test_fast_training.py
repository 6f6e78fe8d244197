"""Each option of docs/gpu.md trains as plain training does, on the CPU."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from ghostdet.engine.hooks import CompileHook
from ghostdet.errors import UserError


@pytest.fixture
def alone(tmp_path):
    """A group of one process."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def losses(tiny):
    """A function that trains ten iterations and returns their losses."""
    cfg = tiny({"image_size": 96, "optim_wrapper.optimizer.lr": 1e-5})
    init_default_scope("mmdet")
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))

    def run(change=nn.Module.double, **optim_wrapper):  # without rounding's chaos
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        model.init_weights()
        model = change(model.train())
        optim = cfg.optim_wrapper.to_dict()
        optim["optimizer"].update(optim_wrapper.pop("optimizer", {}))
        optim = build_optim_wrapper(model, {**optim, **optim_wrapper})
        steps = [model.train_step(batch, optim) for _ in range(10)]
        return [float(step["loss"]) for step in steps]

    return run


def compiled(model):
    keys = model.double().state_dict().keys()
    runner = SimpleNamespace(model=model)
    CompileHook(backend="aot_eager").before_train(runner)  # no compiler, for speed
    assert model.backbone._compiled_call_impl and model.bbox_head._compiled_call_impl
    assert model.state_dict().keys() == keys
    return model


def test_compile(losses):
    assert losses(compiled) == pytest.approx(losses(), rel=1e-5)


def test_fused_optimizer(losses):
    assert losses(optimizer=dict(fused=True)) == pytest.approx(losses(), rel=1e-5)


def test_bucket_view_and_static_graph(losses, alone):
    options = dict(gradient_as_bucket_view=True, static_graph=True)
    wrapped = losses(lambda model: MMDistributedDataParallel(model.double(), **options))
    assert wrapped == pytest.approx(losses(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*GradScaler")
def test_bfloat16(losses, monkeypatch):
    monkeypatch.setattr(amp_optimizer_wrapper, "is_cuda_available", lambda: True)
    half = losses(nn.Module.float, type="AmpOptimWrapper", dtype="bfloat16")
    plain = losses(nn.Module.float)
    assert half != plain and half == pytest.approx(plain, rel=2e-2)


@pytest.mark.parametrize("text", ["g++ is missing\n\nmore", "raised:\ng++ is missing"])
def test_no_compiler(monkeypatch, text):
    def fail(*args, **kwargs):
        raise RuntimeError(text)

    monkeypatch.setattr(torch, "compile", fail)
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match=r"g\+\+ is missing; install .* --compile"):
        CompileHook().before_train(runner)
    runner.rehearses = True
    CompileHook().before_train(runner)


def test_an_unknown_backend():
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match="nonsense"):
        CompileHook(backend="nonsense").before_train(runner)
