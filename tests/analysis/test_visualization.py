import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ghostdet import CONFIGS
from ghostdet.analysis import pictures, visualization, visualize
from ghostdet.apis.model import build_model
from ghostdet.config import load_config
from ghostdet.errors import UserError
from ghostdet.models.layers.ghost_conv import GhostConv

DIGITS = f"{CONFIGS}/classification/ghostnet_digits.py"
IN1K = f"{CONFIGS}/classification/ghostnet_100_in1k.py"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB


@pytest.fixture
def detector(tiny, trained):
    """Config and checkpoint of a detector."""
    return tiny(), trained / "iter_4.pth"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Config and checkpoint of a classifier, with random weights."""
    options = {"test_dataloader.dataset.pipeline.0.size": 64}
    cfg = load_config(DIGITS, cfg_options=options)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("classifier") / "a.pth"
    torch.save(build_model(cfg).state_dict(), path)
    return cfg, path


@pytest.fixture
def cell(cells) -> Path:
    """An image of blood cells."""
    coco = json.loads((cells / "annotations/test.json").read_text())
    return cells / "images" / coco["images"][0]["file_name"]


@pytest.fixture
def red(tmp_path) -> Path:
    """A red image with a black spot."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0] = 255
    image[20:30, 30:50] = 0
    Image.fromarray(image).save(tmp_path / "red.png")
    return tmp_path / "red.png"


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of the functions that draw."""
    calls = []

    def keep(function):
        def call(*args):
            calls.append(args)
            return function(*args)

        return call

    for name in ("draw_pairs", "draw_ghosts"):
        monkeypatch.setattr(visualization, name, keep(getattr(pictures, name)))
    return calls


def weights(checkpoint, name):
    loaded = torch.load(checkpoint, weights_only=False)
    return loaded.get("state_dict", loaded)[name]


def stem(image, checkpoint):
    """The first convolution on an image in RGB, on its own."""
    x = torch.from_numpy(((image - MEAN) / STD).astype(np.float32)).permute(2, 0, 1)
    weight = weights(checkpoint, "backbone.conv_stem.weight")
    return nn.functional.conv2d(x[None], weight, stride=2, padding=1)[0].numpy()


def test_maps_of_a_detector(detector, cell, tmp_path, drawn):
    """The image is RGB, and its padding of 24 and 10 px is cut off."""
    cfg, checkpoint = detector
    cfg.test_dataloader.dataset.pipeline[1].update(scale=(200, 150), keep_ratio=False)
    visualize("pairs", cfg, checkpoint, cell, "backbone.conv_stem", tmp_path / "a.png")
    ((maps, pairs, shown, _),) = drawn
    image = cv2.resize(cv2.imread(cell), (200, 150))[..., ::-1]
    assert np.array_equal(shown, image)
    assert maps.shape == (8, 75, 100) and len(pairs) == 4
    padded = np.pad(image, ((0, 10), (0, 24), (0, 0)), constant_values=0)
    expected = stem(image, checkpoint)
    assert padded.shape == (160, 224, 3)
    assert maps[:, :-1, :-1] == pytest.approx(expected[:, :-1, :-1], abs=1e-4)
    assert Image.open(tmp_path / "a.png").format == "PNG"


@pytest.mark.parametrize(
    "kind, size", [("GhostNet", 64), ("GhostNetV2", 96), ("GhostNetV3", 96)]
)
def test_ghost_maps_of_a_network(kind, size, red, tmp_path, drawn):
    """They are the halves of what the module gives, but for attention in V2 and V3."""
    options = {"model.backbone.type": kind}
    cfg = load_config(DIGITS, cfg_options=options)
    cfg.test_dataloader.dataset.pipeline[0].size = size
    model = build_model(cfg)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    arguments = cfg, tmp_path / "a.pth", red
    out = visualize("ghosts", *arguments, out=tmp_path / "new/a.png")
    pairs = visualize("pairs", *arguments, out=tmp_path / "b.png")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]
    intrinsic, ghosts, kernels, origins, _, titles = drawn[0]
    assert titles[0] == "backbone.blocks.0.0.ghost2"
    assert kernels.shape == (4, 3, 3) and origins == [0, 1, 2, 3, 0, 1, 2, 3]
    maps = drawn[1][0]
    assert np.array_equal(maps, np.concatenate([intrinsic, ghosts]))
    assert Image.open(out).size != Image.open(pairs).size


@pytest.mark.parametrize(
    "picture, layer, message",
    [
        ("pairs", "backbone.block.1.0.ghost1", "names are backbone.blocks.1.0.ghost1"),
        ("pairs", "", "has no layer ''"),
        ("ghosts", "backbone.blocks.1.0.ghost", "are backbone.blocks.1.0.ghost"),
        ("pairs", "head", r"head returns .*1, 10.*, expected the feature maps"),
        ("pairs", "backbone.blocks.3.0.se.conv_reduce", "maps of one value"),
    ],
)
def test_layer_that_does_not_do(classifier, red, tmp_path, picture, layer, message):
    with pytest.raises(UserError, match=message):
        visualize(picture, *classifier, red, layer, tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


def test_layers_that_are_chosen():
    """A Ghost module of ratio 1 counts, so that plain networks show the same layer."""
    convs, ghost = [nn.Conv2d(1, 1, 1) for _ in range(3)], GhostConv(1, 4, 1)
    plain = [GhostConv(1, 2, 1, ratio=1) for _ in range(2)]
    for modules, picture, chosen in (
        ([nn.ReLU(), *convs], "pairs", "2"),
        ([convs[0], ghost], "ghosts", "1"),
        (plain, "pairs", "1"),
        ([*plain, ghost, ghost], "ghosts", "2"),
        ([ghost, *plain], "ghosts", "0"),
    ):
        network = nn.Sequential(*modules)
        assert visualization._find_layer(network, None, picture) == chosen
    with pytest.raises(UserError, match="no Ghost module"):
        visualization._find_layer(nn.Sequential(*convs), None, "ghosts")
