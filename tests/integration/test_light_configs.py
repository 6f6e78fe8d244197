"""The light detectors through their own pipelines: training, checkpoints, AP."""

import numpy as np
import pytest
import torch
from coco_dataset import IN_PROCESS
from unchecked import train

from ghostdet import apis
from ghostdet.config import load_config

SMALL = {
    "model.backbone.init_cfg": None,  # for pretrained weights see tests/weights
    "train_dataloader.batch_size": 1,
    "train_dataloader.dataset.indices": 2,
    "train_cfg.max_epochs": 1,
    "val_dataloader.dataset.indices": 1,
    "test_dataloader.dataset.indices": 1,
    "train_cfg.val_interval": 1,
    "default_hooks.checkpoint.interval": 1,
    "default_hooks.logger.interval": 1,
    "model.test_cfg.score_thr": 0.0,  # an untrained detector scores low
    **IN_PROCESS,
}


@pytest.mark.parametrize(
    "name, side",
    [
        ("light_s_320", 320),
        ("light_m_416", 416),
        ("light_l_416", 416),
        pytest.param("light_m_800", None, marks=pytest.mark.long),
    ],
)
def test_train_and_test(tmp_path, project, coco, new_run, name, side):
    def config():
        new_run()
        return load_config(
            project / f"configs/light/{name}_coco.py", tmp_path, coco, SMALL
        )

    runner = train(config())
    losses = runner.message_hub.get_scalar("train/loss").data[0]
    assert len(losses) == 2 and np.isfinite(losses).all()

    # Validation uses the averaged weights, and the checkpoint holds them for inference.
    saved = torch.load(tmp_path / "epoch_1.pth", weights_only=False)
    key = "backbone.bn1.running_mean"
    trained = saved["ema_state_dict"][f"module.{key}"]
    assert torch.equal(runner.model.state_dict()[key], trained)
    assert not torch.equal(saved["state_dict"][key], trained)
    validated = runner.message_hub.get_scalar("val/coco/bbox_mAP_50").current()
    metrics = apis.test(config(), tmp_path / "epoch_1.pth")
    assert metrics["coco/bbox_mAP_50"] == pytest.approx(validated, abs=1e-6)

    shape = runner.val_dataloader.dataset[0]["data_samples"].img_shape
    if side:
        assert shape == (side, side)
    else:
        assert min(shape) == 800 or max(shape) == 1333
