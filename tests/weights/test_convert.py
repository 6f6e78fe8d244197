import runpy
import sys

import pytest
import torch
from timm.models.ghostnet import _create_ghostnet

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
