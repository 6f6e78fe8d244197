"""Every config: what it names exists, and its detector trains and predicts."""

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

pytestmark = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


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


def test_types(path):
    registries = [
        value
        for module in (mmdet.registry, mmengine.registry)
        for value in vars(module).values()
        if isinstance(value, Registry)
    ]
    types = set(values_of(Config.fromfile(path)._cfg_dict.to_dict(), "type"))
    assert types & {"CocoDataset", "SharedCocoDataset"}
    assert "CheckpointGuardHook" in types
    for name in types:
        # Operators are named without a registry.
        assert hasattr(mmcv.ops, name) or any(r.get(name) for r in registries), name


def test_training_step_and_prediction(path):
    torch.manual_seed(0)
    cfg = Config.fromfile(path)
    classes = min(values_of(cfg.model.to_dict(), "num_classes"))
    dataset_classes = cfg.get("metainfo", {}).get("classes", range(80))
    assert classes == len(dataset_classes)
    cfg.model.backbone.init_cfg = None  # where weights are from: tests/weights
    detector = MODELS.build(cfg.model)
    detector.init_weights()

    # Its labels leave 0 out, so ask for one more and count from 0.
    inputs = demo_mm_inputs(2, [(3, 128, 160), (3, 96, 128)], num_classes=classes + 1)
    for sample in inputs["data_samples"]:
        sample.gt_instances.labels -= 1
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    batch = detector.data_preprocessor(inputs, training=True)
    losses = detector(**batch, mode="loss")
    loss, _ = detector.parse_losses(losses)
    loss.backward()
    gradients = [p.grad for p in detector.parameters() if p.requires_grad]
    # DDP waits for all gradients.
    assert not any(gradient is None for gradient in gradients)
    assert "find_unused_parameters" not in cfg
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in gradients)
    assert next(detector.backbone.parameters()).grad.abs().sum() > 0
    optimizer.step()

    detector.eval()
    with torch.no_grad():
        batch = detector.data_preprocessor(inputs, training=False)
        for sample in detector(**batch, mode="predict"):
            instances = sample.pred_instances
            assert instances.bboxes.shape == (len(instances), 4)
            assert torch.isfinite(instances.bboxes).all()
            assert (instances.labels < classes).all()
