import pickle
import runpy
import sys

import pytest
import torch
from timm.models.ghostnet import _create_ghostnet

from ghostdet.models import GhostNet
from ghostdet.weights import read_weights


@pytest.fixture
def weights(project, monkeypatch):
    """A function that runs ``tools/weights.py`` and returns its exit code."""
    # Where a script finds what is beside it.
    monkeypatch.syspath_prepend(project / "tools")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["weights", *map(str, arguments)])
        try:
            runpy.run_path(str(project / "tools/weights.py"), run_name="__main__")
        except SystemExit as error:
            return error.code
        return 0

    return run


@pytest.fixture
def file(classifier, tmp_path):
    torch.save(classifier().state_dict(), tmp_path / "a.pth")
    return tmp_path / "a.pth"


def test_inspect_and_verify(weights, file, capsys):
    assert weights("inspect", file) == 0
    out = capsys.readouterr().out
    for text in ("GhostNet 1x", "official", "hard_sigmoid", "508 tensors, 2.67M"):
        assert text in out
    assert weights("verify", file) == 0
    assert "the backbone is complete up to stride 32" in capsys.readouterr().out


def test_verify_finds_what_is_wrong(weights, file, capsys):
    state_dict = torch.load(file)
    state_dict["classifier.more"] = state_dict.pop("bn1.bias")
    torch.save(state_dict, file)
    assert weights("verify", file) == 1
    error = capsys.readouterr().err
    assert "1 missing: bn1.bias" in error and "1 unexpected: classifier.more" in error


@pytest.mark.parametrize(
    "width, out_indices",
    [(0.5, (1, 2, 3)), (1.37, (0,)), (0.35, (1,))],
)
def test_verify_a_detector(weights, tmp_path, capsys, width, out_indices):
    backbone = GhostNet(width, out_indices, se_gate="clip", se_divisor=1)
    content = {f"backbone.{n}": v for n, v in backbone.state_dict().items()}
    torch.save(
        {"state_dict": content, "meta": {"cfg": "se_gate='clip'"}}, tmp_path / "a.pth"
    )
    assert weights("verify", tmp_path / "a.pth") == 0
    stride = backbone.out_strides[-1]
    assert f"complete up to stride {stride}\n" in capsys.readouterr().out


def test_convert_and_widen(weights, classifier, file, tmp_path):
    converted, wide = tmp_path / "b.safetensors", tmp_path / "c.safetensors"
    assert weights("convert", file, converted) == 0
    assert weights("widen", converted, wide, "--widen-factor", "1.1") == 0
    assert weights("verify", wide) == 0
    expected = classifier().state_dict()
    result = read_weights(converted).state_dict
    assert all(torch.equal(result[name], expected[name]) for name in expected)
    network = _create_ghostnet("ghostnet_100", width=1.1)
    network.load_state_dict(read_weights(wide).state_dict)
    assert len(list(tmp_path.iterdir())) == 3


def test_publish(weights, trained, project, tmp_path, capsys):
    config = project / "configs/bccd/retinanet_ghostnet_small_bccd.py"
    arguments = ("publish", trained / "iter_4.pth", tmp_path / "a.safetensors")
    options = ("--config", config, "--cfg-options", "model.test_cfg.score_thr=0.2")
    assert weights(*arguments, *options) == 0
    assert "a.json: 3 classes, sha256" in capsys.readouterr().out
    assert '"score_thr": 0.2' in (tmp_path / "a.json").read_text()


def test_the_gate_is_kept(weights, paddle, tmp_path):
    """Names and shapes of a converted PaddleClas file are those of an official one."""
    path, out = tmp_path / "a.pdparams", tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps(paddle(0.5).arrays, protocol=2))
    assert weights("convert", path, out) == 0
    assert weights("verify", out) == 0
    assert read_weights(out).se_gate == "clip"
    assert GhostNet(0.5).se_gate != "clip"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["convert", "{file}", "b.pth"], "does not end in .safetensors"),
        (["convert", "{file}", "a.pth/b.safetensors"], "cannot be written"),
    ],
)
def test_mistakes(weights, file, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert weights(*(a.format(file=file) for a in arguments)) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]  # nothing written
