import hashlib

import pytest
import torch
from mmdet.registry import MODELS

from ghostdet.errors import ConfigError, UserError
from ghostdet.models import GhostNet
from ghostdet.weights import convert as command
from ghostdet.weights import load_pretrained, read_weights, widen_state_dict


@pytest.fixture
def file(classifier, tmp_path):
    """A function: a file with timm's classifier, changed by a function."""

    def write(change=lambda state_dict: None, width=1.0):
        state_dict = dict(classifier(width).state_dict())
        change(state_dict)
        torch.save(state_dict, tmp_path / "a.pth")
        return str(tmp_path / "a.pth")

    return write


def build(checkpoint, width=1.0, out_indices=(1, 2, 3), network="GhostNet", **init):
    """A backbone built and initialised as a detector's is."""
    cfg = dict(
        type=network,
        widen_factor=width,
        out_indices=out_indices,
        init_cfg=dict(type="GhostNetPretrained", checkpoint=checkpoint, **init),
    )
    backbone = MODELS.build(cfg)
    backbone.init_weights()
    return backbone


@pytest.mark.parametrize("out_indices", [(0,), (1, 2, 3), (4,)])
def test_fills_every_parameter(file, out_indices, log):
    path = file()
    backbone = build(path, out_indices=out_indices)
    expected = torch.load(path)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, expected[name]), name
    checksum = hashlib.sha256(open(path, "rb").read()).hexdigest()
    count = len(backbone.state_dict())
    assert (
        f"GhostNet 1x from {path} (official, sha256 {checksum}): {count} ten" in log[0]
    )


def test_never_in_part(file):
    path = file(lambda d: d.pop("blocks.8.3.ghost2.primary_conv.1.running_var"))
    with pytest.raises(UserError, match="1 missing: blocks.8.3.ghost2"):
        build(path)


def test_widened(file):
    path = file()
    backbone = build(path, 1.1, widen=True, noise=0.02, seed=3)
    weights = {n: v for n, v in torch.load(path).items() if n[:9] != "conv_head"}
    expected = widen_state_dict(weights, 1.1, 0.02, 3)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, expected[name]), name
    same = build(path, 1.0, widen=True)  # nothing to widen
    assert torch.equal(same.conv_stem.weight, weights["conv_stem.weight"])


@pytest.mark.parametrize(
    "width, arguments, message",
    [
        (
            1.1,
            {},
            "GhostNet 1x from .* fit a backbone of 1.1x; set widen_factor=1, or w",
        ),
        (0.5, {}, "does not fit a backbone of 0.5x; set widen_factor=1$"),
        (0.5, dict(widen=True), "does not fit a backbone of 0.5x"),
        (1.0, dict(network="GhostNetV2"), r"set backbone=dict\(type='GhostNet'\)"),
    ],
)
def test_another_network(file, width, arguments, message):
    with pytest.raises(ConfigError, match=message):
        build(file(), width, **arguments)


def test_another_gate(file):
    """Shapes are equal, and outputs would not be."""
    backbone = GhostNet(1.0, se_gate="clip")
    with pytest.raises(ConfigError, match="se_gate='hard_sigmoid', se_divisor=4"):
        load_pretrained(backbone, file())
    with pytest.raises(ConfigError, match="se_gate is 'swish', expected one of"):
        GhostNet(1.0, se_gate="swish")


@pytest.fixture
def trained_detector(tmp_path):
    """A function: a checkpoint like MMEngine's of a detector with this backbone."""

    def write(cfg="", **arguments):
        backbone = GhostNet(**arguments)
        weights = {f"backbone.{n}": v for n, v in backbone.state_dict().items()}
        path = tmp_path / "detector.pth"
        torch.save({"state_dict": weights, "meta": {"cfg": cfg}}, path)
        return path

    return write


def test_gate_of_a_detector(trained_detector, tmp_path):
    """It stands in the config that a checkpoint holds as text."""
    path = trained_detector("backbone=dict(\n se_gate='clip')", se_gate="clip")
    assert read_weights(path).se_gate == "clip"
    with pytest.raises(ConfigError, match="se_gate='clip', se_divisor=4"):
        load_pretrained(GhostNet(), path)
    load_pretrained(GhostNet(se_gate="clip"), path)
    assert read_weights(trained_detector("backbone=dict()")).se_gate == "hard_sigmoid"


def test_gate_that_nothing_tells(trained_detector, log, tmp_path):
    path = trained_detector(None)
    for _ in range(2):
        assert read_weights(path).se_gate is None
        load_pretrained(GhostNet(), path)
        assert "does not name its SE gate" in log[-2]
        path = tmp_path / "converted.safetensors"
        command.convert(str(trained_detector(None)), str(path))


def test_for_other_backbones(file):
    with pytest.raises(ConfigError, match="not for Linear; use its own init_cfg"):
        load_pretrained(torch.nn.Linear(1, 1), file())
