"""Training, resuming and prediction on a GPU, for make test-gpu."""

import json
import os
import subprocess
import sys

import pytest
import torch
from unchecked import train

from ghostdet import CONFIGS
from ghostdet.config import load_config
from ghostdet.models import GhostNet, GhostNetV2, GhostNetV3, MobileNetV3

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
DEVICE = "cuda"
CONFIG = f"{CONFIGS}/light/light_s_bccd.py"
LENGTH = {"max_iters": 200, "image_size": 160, "train_dataloader.num_workers": 2}


@pytest.fixture
def config(tmp_path, cells, new_run):
    """A function that loads a light detector's config for the generated images."""

    def load(name="run", **options):
        new_run()
        return load_config(CONFIG, tmp_path / name, cells, {**LENGTH, **options})

    return load


def last_ap(cfg):
    with open(f"{cfg.work_dir}/run.json") as file:
        return json.load(file)["evaluations"][-1]["coco/bbox_mAP"]


@pytest.mark.parametrize("network", [GhostNet, GhostNetV2, GhostNetV3, MobileNetV3])
def test_backbones_equal_the_cpu(network, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    model, x = network(0.5), torch.rand(2, 3, 96, 128)
    results = []
    for device in ("cpu", DEVICE):
        model.to(device).zero_grad()
        outs = model(x.to(device))
        sum(out.square().mean() for out in outs).backward()
        grads = [p.grad.cpu() for p in model.parameters() if p.grad is not None]
        results.append(([out.detach().cpu() for out in outs], grads))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "options, arguments",
    [
        ({}, {}),
        ({}, dict(amp=True)),
        ({"model.backbone.channels_last": True}, {}),
        ({"optim_wrapper.optimizer.fused": True}, {}),
        ({"custom_hooks": [dict(type="CompileHook")]}, {}),
    ],
    ids=["plain", "amp", "channels-last", "fused", "compile"],
)
def test_training_reaches_an_ap(config, options, arguments):
    cfg = config(**options)
    model = train(cfg, **arguments).model
    assert next(model.parameters()).device.type == DEVICE
    assert last_ap(cfg) > 0.4


def test_resuming_continues(config):
    short = {"max_iters": 20, "default_hooks.checkpoint.interval": 10}
    whole = train(config("a", **short)).model.state_dict()
    resumed = config("b", **short)
    runner = train(resumed, resume=str(config("a", **short).work_dir + "/iter_10.pth"))
    assert runner.iter == 20
    torch.testing.assert_close(
        runner.model.state_dict(), whole, rtol=1e-2, atol=1e-2, check_dtype=False
    )


@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_two_ranks(config, project, tmp_path, cells, backend):
    """Over gloo they share a GPU."""
    if backend == "nccl" and torch.cuda.device_count() < 2:
        pytest.skip("NCCL needs a GPU for each rank")
    command = [sys.executable, project / "tools/train.py", CONFIG, "--no-check"]
    command += ["--launcher", "pytorch", "--work-dir", tmp_path / "run"]
    command += ["--data-root", cells, "--cfg-options", "max_iters=20", "image_size=160"]
    command += [f"env_cfg.dist_cfg.backend={backend}"]
    ranks = []
    for rank in range(2):
        local = rank if backend == "nccl" else 0
        environ = dict(RANK=rank, LOCAL_RANK=local, WORLD_SIZE=2, MASTER_PORT=29517)
        environ = {key: str(value) for key, value in environ.items()}
        environ = {**os.environ, "MASTER_ADDR": "127.0.0.1", **environ}
        ranks.append(subprocess.Popen(list(map(str, command)), env=environ))
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    assert (tmp_path / "run/iter_20.pth").is_file()
