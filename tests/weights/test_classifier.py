"""From a classifier to a detector, to timm and back."""

import pickle

import pytest
import safetensors.torch
import torch
from coco_dataset import IN_PROCESS
from mmdet.registry import MODELS
from timm.models.ghostnet import _create_ghostnet
from torchvision.transforms import v2

from ghostdet import CONFIGS, apis
from ghostdet.config import load_config
from ghostdet.datasets import Digits
from ghostdet.errors import ConfigError, UserError
from ghostdet.weights import convert as command
from ghostdet.weights import read_weights

OFFICIAL = f"{CONFIGS}/classification/ghostnet_100_in1k.py"
WIDE = f"{CONFIGS}/classification/ghostnet_110_in1k.py"
DIGITS = f"{CONFIGS}/classification/ghostnet_digits.py"


def build(config, part="model", **options):
    """A part of a config's model, built and initialised as a run does it."""
    cfg = load_config(config, cfg_options=options).model
    model = MODELS.build(cfg if part == "model" else cfg[part])
    model.init_weights()
    return model.eval()


def init(checkpoint, key="model", **options):
    return {
        f"{key}.init_cfg": dict(
            type="GhostNetPretrained", checkpoint=str(checkpoint), **options
        )
    }


@pytest.fixture
def official(classifier, tmp_path):
    """A bare official file, and timm's network with its weights."""
    theirs = classifier()
    torch.save(theirs.state_dict(), tmp_path / "state_dict.pth")
    return tmp_path / "state_dict.pth", theirs


@pytest.fixture
def own(classifier, tmp_path):
    """What a run of the 1.1x config writes, and the classifier that it is of."""
    model = build(WIDE, **{"model.backbone.channels_last": False})
    model.load_state_dict(classifier(1.1).state_dict())
    path = tmp_path / "best.pth"
    torch.save(
        {"state_dict": model.state_dict(), "meta": {"cfg": "se_gate='hard_sigmoid'"}},
        path,
    )
    return path, model


def test_a_detector_takes_it_by_one_override(own, log):
    """Though the config says to widen what is narrower."""
    path, classifier = own
    backbone = build(
        f"{CONFIGS}/retinanet_ghostnet_fpn.py",
        "backbone",
        **{"model.backbone.init_cfg.checkpoint": str(path)},
    )
    expected = classifier.backbone.state_dict()
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert (
        f"GhostNet 1.1x from {path} (classifier, sha256 " in log[0]
        and "502 tensors loaded, not widened: both are 1.1x; 10 of layers" in log[0]
    )


@torch.no_grad()
def test_timm_takes_what_is_converted(own, tmp_path, capsys):
    path, classifier = own
    command.verify(str(path))
    assert "classifier  4 tensors" in capsys.readouterr().out
    out = tmp_path / "official.safetensors"
    command.convert(str(path), str(out))
    assert "508 tensors of the backbone, 512 in all" in capsys.readouterr().out
    theirs = _create_ghostnet("ghostnet_100", width=1.1).eval()
    theirs.load_state_dict(safetensors.torch.load_file(out), strict=True)
    x = torch.randn(2, 3, 64, 96)
    assert torch.equal(theirs(x), classifier(x))
    assert read_weights(out).se_gate == "hard_sigmoid"


@torch.no_grad()
def test_whole_classifier_by_init_cfg(official, tmp_path, log):
    path, theirs = official
    x = torch.randn(2, 3, 64, 96)
    options = {"model.backbone.channels_last": False}
    assert torch.equal(build(OFFICIAL, **init(path), **options)(x), theirs(x))
    assert "512 tensors loaded; 0 of layers" in log[-1]
    safe = tmp_path / "model.safetensors"
    safetensors.torch.save_file(theirs.state_dict(), safe)
    assert torch.equal(build(OFFICIAL, **init(safe), **options)(x), theirs(x))
    wide = build(WIDE, **init(path, widen=True, noise=0.0))(x)
    assert (wide - theirs(x)).abs().max() < 1e-4 * theirs(x).abs().max()


def paddles(folder, paddle):
    path = folder / "a.pdparams"
    path.write_bytes(pickle.dumps(paddle(0.5).arrays, protocol=2))
    return path


def test_another_classifier(official, paddle, tmp_path):
    """The error says how to start from the backbone, and so it does."""
    path, _ = official
    with pytest.raises(ConfigError, match="1000 classes, and the head 10; ") as caught:
        build(OFFICIAL, **init(path), **{"model.head.num_classes": 10})
    remedy, other = caught.value.text.splitlines()
    assert other.endswith("model.head.num_classes=1000")
    typed = remedy.partition("--cfg-options ")[2].split()
    assert typed == [
        "model.init_cfg=None",
        "model.backbone.init_cfg.type=GhostNetPretrained",
        f"model.backbone.init_cfg.checkpoint={path}",
    ]
    options = dict(part.split("=") for part in typed) | {"model.init_cfg": None}
    build(OFFICIAL, **options, **{"model.head.num_classes": 10})

    bare = {n: v for n, v in torch.load(path).items() if "classifier" not in n}
    torch.save(bare, path)
    with pytest.raises(ConfigError, match="has no classifier, or another one"):
        build(OFFICIAL, **init(path))

    file = paddles(tmp_path, paddle)
    options = {"model.backbone.se_gate": "clip", "model.backbone.se_divisor": 1}
    config = f"{CONFIGS}/classification/ghostnet_050_in1k.py"
    with pytest.raises(ConfigError, match="PaddleClas. has no classifier, or another"):
        build(config, **init(file), **options)
    build(config, **init(file, "model.backbone"), **options)


@pytest.fixture
def official_digits(classifier, tmp_path):
    """An official file of the digits' config, and how right timm's network is."""
    theirs = _create_ghostnet("ghostnet_100", width=0.5, num_classes=10).eval()
    weights = classifier(0.5).state_dict()
    generator = torch.Generator().manual_seed(0)
    weights["classifier.weight"] = torch.randn(10, 1280, generator=generator)
    weights["classifier.bias"] = torch.zeros(10)
    theirs.load_state_dict(weights)
    torch.save(weights, tmp_path / "digits.pth")
    pipeline = load_config(DIGITS).test_dataloader.dataset.pipeline
    data = list(Digits(train=False, pipeline=pipeline))
    images = torch.stack([sample["inputs"] for sample in data]).float()
    images = v2.Normalize((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))(images)
    labels = torch.tensor([sample["data_samples"]["gt_label"] for sample in data])
    with torch.no_grad():
        right = (theirs(images).argmax(1) == labels).sum().item()
    return tmp_path / "digits.pth", right * 100 / len(labels)


def test_evaluated_as_it_is(official_digits, tmp_path, new_run, paddle):
    """A bare file, also where weights are averaged; all of it fits, or an error."""
    path, accuracy = official_digits
    cfg = load_config(DIGITS, tmp_path / "run", cfg_options=IN_PROCESS)
    cfg.custom_hooks.append(dict(type="EMAHook"))
    new_run()
    assert apis.test(cfg, path) == {"accuracy/top1": pytest.approx(accuracy)}

    weights = torch.load(path)
    del weights["bn1.bias"]
    torch.save(weights, tmp_path / "b.pth")
    new_run()
    with pytest.raises(UserError, match="1 missing: backbone.bn1.bias"):
        apis.test(cfg, tmp_path / "b.pth")
    new_run()
    with pytest.raises(UserError, match="weights of PaddleClas go into the init_cfg"):
        apis.test(cfg, paddles(tmp_path, paddle))
