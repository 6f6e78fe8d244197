import pickle
import re
import shutil
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import mmdet
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleLR
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from torch import nn

from ghostdet import apis
from ghostdet.apis import load_detector, train
from ghostdet.engine import CheckpointGuardHook
from ghostdet.errors import UserError
from ghostdet.weights import check_state_dict, read_checkpoint

MMDET = Path(mmdet.__file__).parent / ".mim/configs"


class Calls:
    """Pickled, it calls a function when it is opened."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def write_pickle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.fixture(params=[torch.save, write_old], ids=["zip", "old"])
def save(request):
    return request.param


def test_reads_what_training_writes(trained):
    content = read_checkpoint(str(trained / "iter_2.pth"))
    assert content["meta"]["iter"] == 2
    assert {"state_dict", "optimizer", "param_schedulers"} <= content.keys()
    loss = content["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(loss, HistoryBuffer)
    assert loss.mean() > 0


def test_reads_what_numpy_1_wrote(tmp_path):
    path = tmp_path / "a.pth"
    write_old({"a": np.float64(0.5), "b": np.arange(3.0)}, path)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multi", b"numpy.core.multi"))
    content = read_checkpoint(str(path))
    assert content["a"] == 0.5
    assert content["b"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("save", [torch.save, write_old, write_pickle])
def test_foreign_code_is_not_run(tmp_path, save):
    marker, path = tmp_path / "marker", tmp_path / "a.pth"
    save({"state_dict": {}, "x": Calls(Path.touch, marker)}, path)
    with pytest.raises(UserError, match="more than weights: (getattr|pathlib)"):
        read_checkpoint(str(path))
    assert not marker.exists()
    pickle.loads(pickle.dumps(Calls(Path.touch, marker)))
    assert marker.exists()  # it would have been


@pytest.mark.parametrize(
    "owner, name",
    [
        (OrderedDict, "fromkeys"),
        (HistoryBuffer, "__init__"),
        (HistoryBuffer, "register_statistics"),
    ],
)
def test_getattr_is_not_for_anything_else(tmp_path, save, owner, name):
    save({"x": Calls(getattr, owner, name)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=f"more than weights: getattr.*{name}"):
        read_checkpoint(str(tmp_path / "a.pth"))


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


def test_state_dict_that_fits():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
    state_dict = model.state_dict()
    check_state_dict(model, state_dict, "a.pth")
    del state_dict["1.num_batches_tracked"]  # older ones lack it
    check_state_dict(model, state_dict, "a.pth")


def test_state_dict_that_does_not_fit():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
    state_dict = model.state_dict()
    state_dict["0.weight"] = torch.zeros(4, 3, 1, 1)
    state_dict["2.weight"] = state_dict.pop("1.weight")
    with pytest.raises(UserError) as caught:
        check_state_dict(model, state_dict, "a.pth")
    for line in (
        "a.pth do",
        "1 missing: 1.weight",
        "1 unexpected: 2.weight",
        "1 size mismatch: 0.weight is [4, 3, 1, 1], not [8, 3, 1, 1]",
    ):
        assert line in str(caught.value)
    check_state_dict(model, state_dict, "a.pth", allow=["0.weight", r"[12]\.w"])
    check_state_dict(model, state_dict, "a.pth", allow=r"[012]\.weight")
    with pytest.raises(UserError, match="size mismatch: 0.weight"):
        check_state_dict(model, state_dict, "a.pth", allow=["weight"])  # at the start


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


def test_detectors_that_rename_what_they_load():
    file = "soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py"
    model = Config.fromfile(MMDET / file).model
    with DefaultScope.overwrite_default_scope("mmdet"):
        plain = MODELS.build(model.detector)
        teacher = MODELS.build(model)
    check_state_dict(teacher, plain.state_dict(), "a.pth")
    weights = plain.state_dict()
    del weights["backbone.conv1.weight"]
    with pytest.raises(UserError, match="missing: .*backbone.conv1.weight"):
        check_state_dict(teacher, weights, "a.pth")


def test_refuses_what_are_no_tensors():
    model = nn.Linear(2, 3)
    with pytest.raises(UserError, match="model is a OrderedDict; give"):
        check_state_dict(model, {"model": model.state_dict()}, "a.pth")


@pytest.mark.parametrize("anneal_strategy", ["cos", "linear"])
def test_reads_the_state_of_one_cycle(tmp_path, anneal_strategy):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    schedule = OneCycleLR(
        optimizer, eta_max=1.0, total_steps=9, anneal_strategy=anneal_strategy
    )
    torch.save({"param_schedulers": [schedule.state_dict()]}, tmp_path / "a.pth")
    state = read_checkpoint(str(tmp_path / "a.pth"))["param_schedulers"][0]
    assert state["anneal_func"](0, 1, 0.5) == schedule.anneal_func(0, 1, 0.5)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f2", "c8", "?"])
def test_reads_arrays(tmp_path, save, dtype):
    array = np.ones(3, dtype)
    save({"a": array}, tmp_path / "a.pth")
    read = read_checkpoint(str(tmp_path / "a.pth"))["a"]
    assert read.dtype == array.dtype and (read == array).all()


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


def test_config_in_a_checkpoint_is_not_run(tiny, trained, tmp_path):
    marker = tmp_path / "marker"
    text = f"a = open({str(marker)!r}, 'w').close()\n"
    content = torch.load(trained / "iter_2.pth", weights_only=False)
    content["meta"]["config"] = text
    torch.save(content, tmp_path / "a.pth")
    cfg = tiny({"train_cfg.max_iters": 3, "train_cfg.val_interval": 9})
    cfg.custom_hooks = []  # someone's own config has not got the guard
    assert train(cfg, resume=str(tmp_path / "a.pth")).iter == 3
    assert not marker.exists()
    Config.fromstring(text, file_format=".py")
    assert marker.exists()  # it would have been


@pytest.mark.parametrize("wrapped", [True, False])
def test_weights_alone(tiny, trained, tmp_path, wrapped):
    weights = read_checkpoint(str(trained / "iter_2.pth"))["state_dict"]
    path = str(tmp_path / "weights.pth")
    torch.save({"state_dict": weights} if wrapped else weights, path)
    with pytest.raises(UserError, match="nothing to resume.*load_from="):
        train(tiny(), resume=path)
    detector = load_detector(tiny(), path).state_dict()
    assert all(torch.equal(weights[name].cpu(), detector[name]) for name in weights)
