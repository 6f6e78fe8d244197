import copy
import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from torch import nn

from ghostdet import CONFIGS
from ghostdet.engine import load_config
from ghostdet.engine.footprint import Footprint, footprint, saved_bytes
from ghostdet.errors import UserError


def footprint_of(name, shape, images, options=None) -> tuple[Footprint, nn.Module]:
    cfg = load_config(f"{CONFIGS}/{name}.py", cfg_options=options)
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"):
        model = MODELS.build(copy.deepcopy(cfg.model))
        return footprint(cfg, model, shape, images), model


@pytest.mark.parametrize(
    "name, states, averaged",
    [
        ("retinanet_ghostnet_fpn", 1, 0),  # SGD's momentum
        ("bccd/retinanet_ghostnet_bccd", 2, 0),  # AdamW's two
        ("light/light_s_320_coco", 2, 1),
        ("classification/ghostnet_in1k", 1, 1),
        ("classification/ghostnet_digits", 2, 0),
    ],
)
def test_weights_gradients_optimizer(name, states, averaged):
    size, model = footprint_of(name, (64, 64), 2)
    trained = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    buffers = sum(b.nbytes for b in model.buffers())
    assert size.gradients == trained
    assert size.weights == trained + buffers
    assert size.averaged == averaged * size.weights
    assert states * trained <= size.optimizer < states * trained + 10_000


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_saved_by_known_layers(device):
    # A convolution keeps its input, ReLU its output.
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU()).to(device)
    image = torch.zeros(2, 3, 10, 10, device=device)
    kept, output = saved_bytes(model, lambda: model(image))
    assert kept == 4 * 2 * (3 + 8) * 10 * 10
    assert output.shape == (2, 8, 10, 10)


@pytest.mark.parametrize(
    "name", ["faster_rcnn_ghostnet_fpn", "classification/ghostnet_in1k"]
)
def test_activations_grow_with_the_batch_and_shrink_with_mixed_precision(name):
    one, two = (footprint_of(name, (64, 96), n)[0].activations for n in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.01)
    half, _ = footprint_of(name, (64, 96), 2, {"optim_wrapper.type": "AmpOptimWrapper"})
    assert half.activations == two // 2


def test_frozen_layers_keep_nothing():
    name = "bccd/retinanet_ghostnet_bccd"
    free, _ = footprint_of(name, (64, 64), 2)
    frozen, _ = footprint_of(name, (64, 64), 2, {"model.backbone.frozen_stages": 3})
    assert frozen.activations < 0.8 * free.activations
    assert frozen.gradients < free.gradients
    assert frozen.optimizer < free.optimizer


def test_other_kinds():
    cfg = load_config(f"{CONFIGS}/retinanet_ghostnet_fpn.py")
    with pytest.raises(UserError, match="one-stage detectors and those with"):
        footprint(cfg, nn.Sequential(), (64, 64), 1)


MEASURE = """
import re, sys
import torch, ghostdet
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.registry import DefaultScope

def kib(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

config, height, width, images = sys.argv[1], *map(int, sys.argv[2:])
cfg = ghostdet.engine.load_config(config)
torch.set_num_threads(1)
with DefaultScope.overwrite_default_scope("mmdet"):
    model = MODELS.build(cfg.model).train()
    shapes = [[3, height, width]] * images
    inputs = demo_mm_inputs(images, shapes, num_items=[7] * images, num_classes=3)
    if hasattr(model, "head"):  # a classifier
        inputs["inputs"] = torch.stack(inputs["inputs"])
        inputs["data_samples"] = dict(gt_label=torch.arange(images) % 3)
    data = model.data_preprocessor(inputs, True)
    before = kib("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    losses = model(**data, mode="loss")
    sum(model.parse_losses(losses)[:1]).backward()
    print("MB", (kib("VmHWM") - before) * 1024 / 1e6)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "name, height, width, images",
    [
        ("retinanet_ghostnet_fpn", 800, 1344, 2),
        ("retinanet_mobilenetv2_fpn", 800, 1344, 1),
        ("faster_rcnn_ghostnet_fpn", 800, 1344, 2),
        ("light/light_s_320_coco", 320, 320, 32),
        ("bccd/retinanet_ghostnet_bccd", 256, 256, 8),
        ("classification/ghostnet_in1k", 224, 224, 32),
        ("classification/ghostnet_digits", 32, 32, 1024),
    ],
)
def test_estimate_against_the_peak_of_a_step(
    command, monkeypatch, name, height, width, images
):
    # Otherwise glibc's heap keeps what is freed between what is not, and the peak is
    # that of chance: 532 to 614 MB for one batch of digits.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    result = command("-c", MEASURE, f"{CONFIGS}/{name}.py", height, width, images)
    assert result.returncode == 0, result.stderr
    peak = float(re.search(r"MB ([\d.]+)", result.stdout)[1])
    size, _ = footprint_of(name, (height, width), images)
    estimate = (size.gradients + size.activations) / 1e6
    print(f"| `{name}` | {images} of {width}x{height} | {estimate:.0f} | {peak:.0f} |")
    assert estimate == pytest.approx(peak, rel=0.1)
