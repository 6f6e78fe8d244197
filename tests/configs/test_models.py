"""Every config: what it names exists, and its model trains and predicts."""

import copy
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

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)
CLASSIFIERS = [path for path in FILES if path.parent.name == "classification"]
DETECTORS = [path for path in FILES if path not in CLASSIFIERS]


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
    types = set(values_of(Config.fromfile(path)._cfg_dict.to_dict(), "type"))
    folders = {"ImageFolder", "CIFAR10", "Digits"}
    assert types & (folders if path in CLASSIFIERS else {"CocoDataset"})
    assert "CheckpointGuardHook" in types
    for name in types:
        # Operators are named without a registry.
        assert hasattr(mmcv.ops, name) or any(r.get(name) for r in registries), name


@each(DETECTORS)
def test_training_step_and_prediction(path):
    torch.manual_seed(0)
    cfg = Config.fromfile(path)
    classes = min(values_of(cfg.model.to_dict(), "num_classes"))
    dataset_classes = cfg.get("metainfo", {}).get("classes", range(80))
    assert classes == len(dataset_classes)
    # Its labels leave 0 out, so ask for one more and count from 0.
    inputs = demo_mm_inputs(2, [(3, 128, 160), (3, 96, 128)], num_classes=classes + 1)
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
    cfg = Config.fromfile(path)
    classes = 1000 if path.stem.endswith("in1k") else 10
    images = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8)
    samples = dict(gt_label=torch.tensor([0, 9, 1, 9]), img_path=list("abcd"))
    predictions = step_and_predict(cfg, dict(inputs=images, data_samples=samples))
    scores = torch.stack([prediction["pred_score"] for prediction in predictions])
    assert scores.shape == (4, classes)
    torch.testing.assert_close(scores.sum(1), torch.ones(4))
    assert [prediction["img_path"] for prediction in predictions] == list("abcd")


def step_and_predict(cfg, inputs):
    """Train a step: all parameters get finite gradients; then predict."""
    cfg.model.backbone.init_cfg = None  # where weights are from: tests/weights
    model = MODELS.build(cfg.model)
    model.init_weights()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = model.data_preprocessor(copy.deepcopy(inputs), training=True)
    losses = model(**batch, mode="loss")
    loss, _ = model.parse_losses(losses)
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    # DDP waits for all gradients.
    assert not any(gradient is None for gradient in gradients)
    assert "find_unused_parameters" not in cfg
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in gradients)
    assert next(model.backbone.parameters()).grad.abs().sum() > 0
    optimizer.step()

    model.eval()
    with torch.no_grad():
        return model(**model.data_preprocessor(inputs), mode="predict")
