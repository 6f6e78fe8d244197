"""Every config: its types are registered, and its model trains and predicts."""

import copy
import functools
from pathlib import Path

import mmcv.ops
import mmdet.registry
import mmengine.registry
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from torch import nn

from ghostdet._values import giving

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)
CLASSIFIERS = [path for path in FILES if path.parent.name == "classification"]
DETECTORS = [path for path in FILES if path not in CLASSIFIERS]


@functools.cache
def parse(path):
    own = path.parent.name == "own"  # for classes of a config on top
    with giving({"classes": ("a", "b")} if own else {}):
        return Config.fromfile(path)


def load(path):
    return copy.deepcopy(parse(path))


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def values_of(node, key):
    """All values of a key at any depth."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from values_of(value, key)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from values_of(value, key)


@pytest.fixture(autouse=True)
def in_mmdet():
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


@each(FILES)
def test_types(path):
    registries = [
        value
        for module in (mmdet.registry, mmengine.registry)
        for value in vars(module).values()
        if isinstance(value, Registry)
    ]
    types = set(values_of(load(path).to_dict(), "type"))
    folders = {"ImageFolder", "CIFAR10", "Digits"}
    assert types & (folders if path in CLASSIFIERS else {"CocoDataset"})
    assert "CheckpointGuardHook" in types
    for name in types:
        # NMS and RoIAlign are named without a registry.
        assert hasattr(mmcv.ops, name) or any(r.get(name) for r in registries), name


@each(DETECTORS)
def test_training_step_and_prediction(path):
    torch.manual_seed(0)
    cfg = load(path)
    classes = min(values_of(cfg.model.to_dict(), "num_classes"))
    dataset_classes = cfg.get("classes", range(80))
    assert classes == len(dataset_classes)
    if "rpn_head" in cfg.model:
        few = dict(nms_pre=50, max_per_img=20)  # so that two stages are quick
        cfg.merge_from_dict(
            {"model.train_cfg.rpn_proposal": few, "model.test_cfg.rpn": few}
        )
    # Its labels leave 0 out, so ask for one more and count from 0.
    inputs = demo_mm_inputs(2, [(3, 64, 96), (3, 48, 96)], num_classes=classes + 1)
    for sample in inputs["data_samples"]:
        sample.gt_instances.labels -= 1
    for sample in step_and_predict(cfg, inputs):
        instances = sample.pred_instances
        assert instances.bboxes.shape == (len(instances), 4)
        assert torch.isfinite(instances.bboxes).all()
        assert (instances.labels < classes).all()


@each(CLASSIFIERS)
def test_classifier(path):
    torch.manual_seed(0)
    cfg = load(path)
    classes = 1000 if path.stem.endswith("in1k") else 10
    images = torch.randint(256, (4, 3, 48, 48), dtype=torch.uint8)
    samples = dict(gt_label=torch.tensor([0, 9, 1, 9]), img_path=list("abcd"))
    predictions = step_and_predict(cfg, dict(inputs=images, data_samples=samples))
    scores = torch.stack([prediction["pred_score"] for prediction in predictions])
    assert scores.shape == (4, classes)
    torch.testing.assert_close(scores.sum(1), torch.ones(4))
    assert [prediction["img_path"] for prediction in predictions] == list("abcd")


def step_and_predict(cfg, inputs):
    """Train a step, in which all parameters get gradients, and BN learns; predict."""
    cfg.model.backbone.init_cfg = None  # for pretrained weights see tests/weights
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    learns = not cfg.model.backbone.get("norm_eval", False)
    assert norms and all(norm.training == learns for norm in norms)
    batch = model.data_preprocessor(copy.deepcopy(inputs), training=True)
    loss, _ = model.parse_losses(model(**batch, mode="loss"))
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    # DDP waits for all gradients, unless it is told that some do not come.
    unused = any(gradient is None for gradient in gradients)
    assert unused == cfg.get("find_unused_parameters", False)
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)
    assert next(model.backbone.parameters()).grad.abs().sum() > 0
    model.eval()
    with torch.no_grad():
        return model(**model.data_preprocessor(inputs), mode="predict")
