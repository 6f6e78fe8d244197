"""Training and testing a classifier."""

import pytest
import torch
from coco_dataset import IN_PROCESS
from unchecked import train

from ghostdet import CONFIGS
from ghostdet.apis import test as evaluate
from ghostdet.apis.amp import use_amp
from ghostdet.apis.model import build_model
from ghostdet.config import load_config
from ghostdet.errors import UserError

DIGITS = f"{CONFIGS}/classification/ghostnet_digits.py"
SHORT = {"train_cfg.max_epochs": 1, "param_scheduler": [], **IN_PROCESS}


@pytest.fixture(scope="module")
def run(tmp_path_factory, new_run):
    new_run()
    work_dir = tmp_path_factory.mktemp("digits")
    train(load_config(DIGITS, work_dir, None, SHORT))
    return work_dir


def test_evaluated_on_fewer_classes(run, digit_folders, tmp_path, new_run):
    """The message is about the data, not about the head."""
    new_run()
    cfg = load_config(DIGITS, tmp_path / "run")
    folder = dict(type="ImageFolder", root=str(digit_folders / "val"))
    cfg.test_dataloader.dataset = folder | dict(
        pipeline=cfg.test_dataloader.dataset.pipeline
    )
    with pytest.raises(UserError, match="n0, n1, n2, n3, and .* was trained on 0, 1"):
        evaluate(cfg, run / "epoch_1.pth")


def test_amp():
    """Logits are near those in fp32, and are fp32."""
    torch.manual_seed(0)
    model = build_model(load_config(DIGITS)).eval()
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
        use_amp(model)
        logits = model(x)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, expected)
    torch.testing.assert_close(logits, expected, atol=0.02, rtol=0.05)
