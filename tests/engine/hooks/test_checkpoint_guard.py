import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleLR
from mmengine.runner import CheckpointLoader
from torch import nn

from ghostdet import apis
from ghostdet.apis import load_detector, train
from ghostdet.engine import CheckpointGuardHook
from ghostdet.errors import UserError
from ghostdet.weights import read_checkpoint


class Calls:
    """Pickled, it calls a function when it is opened."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_reads_what_training_writes(trained):
    content = read_checkpoint(str(trained / "iter_2.pth"))
    assert content["meta"]["iter"] == 2
    assert {"state_dict", "optimizer", "param_schedulers"} <= content.keys()
    loss = content["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(loss, HistoryBuffer)
    assert loss.mean() > 0


def cut(path, trained):
    content = (trained / "iter_2.pth").read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    "make, message",
    [
        (cut, "failed reading zip archive"),
        (lambda path, _: path.write_text("hello " * 9), "not in a form"),
        (lambda path, _: path.write_text("<!DOCTYPE html>"), "not in a form"),
        (lambda path, _: path.write_bytes(b""), "cannot be read as a checkpoint"),
        (lambda path, _: path.write_bytes(b"\xff\xd8\xff\xe0"), "not in a form"),
        (lambda path, _: path.mkdir(), "no checkpoint at"),
        (lambda path, _: None, "no checkpoint at"),
        (lambda path, _: torch.save([1], path), "no state_dict .found list"),
        (lambda path, _: torch.save({"state_dict": None}, path), "no state_dict"),
        (lambda path, _: torch.save({"meta": [1]}, path), "no state_dict"),
    ],
)
def test_what_is_no_checkpoint(tmp_path, trained, make, message):
    path = tmp_path / "a.pth"
    make(path, trained)
    with pytest.raises(UserError, match=message) as caught:
        read_checkpoint(str(path))
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("prefix", ["", "module."])
def test_guard(prefix):
    runner = SimpleNamespace(model=nn.Linear(2, 3))
    weights = {f"{prefix}{k}": v for k, v in runner.model.state_dict().items()}
    CheckpointGuardHook().after_load_checkpoint(runner, {"state_dict": weights})
    bare = dict(weights)
    CheckpointGuardHook().after_load_checkpoint(runner, bare)
    assert bare == {"state_dict": weights}  # as the hooks behind it expect
    del weights[f"{prefix}bias"]
    with pytest.raises(UserError, match="1 missing: bias"):
        CheckpointGuardHook().after_load_checkpoint(runner, {"state_dict": weights})
    CheckpointGuardHook(["bias"]).after_load_checkpoint(runner, {"state_dict": weights})


def test_another_head_from_a_trained_detector(tiny, trained):
    options = {
        "load_from": str(trained / "iter_4.pth"),
        "train_cfg.max_iters": 1,
        "model.bbox_head.anchor_generator.ratios": [1.0],
    }
    cfg = tiny(options)
    cfg.custom_hooks = None  # someone's own config has not got the guard
    message = r"retina_cls.bias is \[27\], not \[9\](.|\n)*custom_hooks=(.*)$"
    with pytest.raises(UserError, match=message) as caught:
        train(cfg)
    cfg = tiny(options)
    cfg.custom_hooks = eval(caught.value.text.rpartition("custom_hooks=")[2])
    assert train(cfg).iter == 1


@pytest.mark.parametrize("anneal_strategy", ["cos", "linear"])
def test_reads_the_state_of_one_cycle(tmp_path, anneal_strategy):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    schedule = OneCycleLR(
        optimizer, eta_max=1.0, total_steps=9, anneal_strategy=anneal_strategy
    )
    torch.save({"param_schedulers": [schedule.state_dict()]}, tmp_path / "a.pth")
    state = read_checkpoint(str(tmp_path / "a.pth"))["param_schedulers"][0]
    assert state["anneal_func"](0, 1, 0.5) == schedule.anneal_func(0, 1, 0.5)


def test_addresses(address, tmp_path):
    url, folder = address
    marker = tmp_path / "marker"
    torch.save({"a": torch.ones(2)}, folder / "good.pth")
    torch.save({"x": Calls(Path.touch, marker)}, folder / "bad.pth")
    (folder / "cut.pth").write_bytes((folder / "good.pth").read_bytes()[:500])
    with pytest.raises(UserError, match="cut.pth cannot be read as a checkpoint"):
        read_checkpoint(f"{url}/cut.pth")
    shutil.copy(folder / "good.pth", folder / "cut.pth")
    assert read_checkpoint(f"{url}/cut.pth")  # what was downloaded first is gone
    for _ in range(2):
        loaded = CheckpointLoader.load_checkpoint(f"{url}/good.pth", logger=None)
        assert loaded["a"].tolist() == [1, 1]
        (folder / "good.pth").unlink(missing_ok=True)  # kept on disk
    with pytest.raises(UserError, match="more than weights"):
        CheckpointLoader.load_checkpoint(f"{url}/bad.pth", logger=None)
    assert not marker.exists()
    for name in ("other.pth", "a name.pth"):
        with pytest.raises(UserError, match=f"{name} cannot be downloaded"):
            read_checkpoint(f"{url}/{name}")


@pytest.mark.parametrize("way", ["load_from", "resume", "test", "load_detector"])
def test_another_width(tiny, trained, way):
    checkpoint = str(trained / "iter_4.pth")
    cfg = tiny({"model.backbone.widen_factor": 1.0, "model.neck.widen_factor": 1.0})
    message = "size mismatch: " + re.escape(
        "backbone.blocks.0.0.ghost1.cheap_operation.0.weight is [4, 1, 3, 3], "
        "not [8, 1, 3, 3]"
    )
    with pytest.raises(UserError, match=message):
        if way == "load_from":
            cfg.load_from = checkpoint
            train(cfg)
        elif way == "resume":
            train(cfg, resume=checkpoint)
        elif way == "test":
            apis.test(cfg, checkpoint)
        else:
            load_detector(cfg, checkpoint)


@pytest.mark.parametrize("wrapped", [True, False])
def test_weights_alone(tiny, trained, tmp_path, wrapped):
    weights = read_checkpoint(str(trained / "iter_2.pth"))["state_dict"]
    path = str(tmp_path / "weights.pth")
    torch.save({"state_dict": weights} if wrapped else weights, path)
    with pytest.raises(UserError, match="nothing to resume.*load_from="):
        train(tiny(), resume=path)
    detector = load_detector(tiny(), path).state_dict()
    assert all(torch.equal(weights[name].cpu(), detector[name]) for name in weights)
