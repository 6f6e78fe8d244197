"""One network in every format it is published in, and files that are none of them."""

import pickle
import re

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from timm.models.ghostnet import checkpoint_filter_fn

from ghostdet.errors import UserError
from ghostdet.models import CifarVGG16, GhostNet
from ghostdet.weights import load_pretrained, read_weights


def old_pickle(state_dict, path):
    torch.save(state_dict, path, _use_new_zipfile_serialization=False)


def nested(state_dict, path):
    torch.save({"state_dict": state_dict, "epoch": 3}, path)


def parallel(state_dict, path):
    torch.save({f"module.{n}": v for n, v in state_dict.items()}, path)


def detector(state_dict, path):
    weights = {f"backbone.{n}": v for n, v in state_dict.items() if n[:4] != "clas"}
    weights = {n: v for n, v in weights.items() if "conv_head" not in n}
    torch.save({"state_dict": {**weights, "bbox_head.a.weight": torch.ones(2)}}, path)


@pytest.mark.parametrize(
    "write, suffix, kind",
    [
        (torch.save, "pth", "official"),
        (old_pickle, "pth", "official"),
        (nested, "pth.tar", "official"),
        (parallel, "pth", "official"),
        (safetensors.torch.save_file, "safetensors", "official"),
        (detector, "pth", "detector"),
    ],
)
def test_formats(classifier, tmp_path, write, suffix, kind):
    theirs = classifier()
    path = tmp_path / f"a.{suffix}"
    write(theirs.state_dict(), path)
    weights = read_weights(path)
    assert (weights.network, weights.widen_factor) == ("GhostNet", 1.0)
    assert weights.format == kind
    assert len(weights.backbone) == 508
    backbone = GhostNet(1.0, out_indices=(4,)).eval()
    load_pretrained(backbone, path)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x)[0], theirs.forward_features(x))


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_official_names_of_the_later_versions(classifier, tmp_path, version):
    """Official V3 has ``bn`` where timm has ``bn1``, and totals of a profiler."""
    theirs = classifier(1.0, version).state_dict()
    pattern = r"(_rpr_\w+(\.\d)?)\.bn1\."
    renamed = {re.sub(pattern, r"\1.bn.", n): v for n, v in theirs.items()}
    assert (renamed.keys() != theirs.keys()) == (version == "v3")
    renamed["blocks.0.0.total_ops"] = torch.zeros(1)
    torch.save({"state_dict": renamed}, tmp_path / "a.pth")
    weights = read_weights(tmp_path / "a.pth")
    assert weights.network == f"GhostNet{version.upper()}"
    assert weights.state_dict.keys() == theirs.keys()
    assert checkpoint_filter_fn(renamed, None).keys() == theirs.keys()  # timm's own way


@pytest.mark.parametrize("width", [0.5, 1.0, 1.3])
def test_paddle(paddle, tmp_path, width):
    theirs = paddle(width)
    path = tmp_path / "GhostNet.pdparams"
    content = {**theirs.arrays, "StructuredToParameterName@@": {"conv1": "conv1_w"}}
    path.write_bytes(pickle.dumps(content, protocol=2))
    backbone = GhostNet(width, (4,), se_gate="clip", se_divisor=1).eval()
    weights = load_pretrained(backbone, path)
    assert (weights.format, weights.widen_factor) == ("PaddleClas", width)
    x = torch.rand(1, 3, 64, 64, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(backbone.double()(x)[0], theirs(x))


GHOST = {
    "conv_stem.weight": torch.ones(16, 3, 3, 3),
    "blocks.0.0.ghost1.primary_conv.0.weight": torch.ones(8, 16, 1, 1),
}


@pytest.mark.parametrize(
    "content, message",
    [
        ({}, "begins with nothing"),
        (timm.create_model("mobilenetv3_small_050").state_dict(), "another arc"),
        (GHOST | {"conv_stem.weight": 3}, "conv_stem.weight is a int"),
        (GHOST | {"bn1.bias": torch.ones(2).to_sparse()}, "expected a dense tensor"),
        (GHOST | {"bn1.bias": torch.ones(2).int()}, "bn1.bias is of torch.int32"),
        (GHOST | {"bn1.bias": torch.tensor(float("nan"))}, "with NaN or infin"),
        ({"layer1.weight": torch.ones(1)}, "another architecture.*layer1"),
        (
            {f"backbone.{n}": v for n, v in CifarVGG16(ratio=2).state_dict().items()},
            "another architecture than GhostNet, .*layers.0.primary_conv",
        ),
        (
            {"features.1.conv.0.primary_conv.0.weight": torch.ones(1)},
            "is d-li14's GhostNet, another network: its shortcuts have a 3x3",
        ),
    ],
)
def test_what_is_no_ghostnet(tmp_path, content, message):
    path = tmp_path / "a.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=message):
        read_weights(path)


def test_what_is_no_ghostnet_of_paddle(tmp_path):
    content = {"_ghostbottleneck_0.other._conv.weight": np.ones(1)}
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError, match="PaddleClas's GhostNet and others: _ghostb"):
        read_weights(path)
