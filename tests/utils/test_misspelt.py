"""Keys that nothing reads are refused, and all configs of MMDetection are accepted."""

from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config

from ghostdet import CONFIGS
from ghostdet.config import load_config
from ghostdet.errors import UserError
from ghostdet.utils.misspelt import refuse_misspelt

CONFIG = f"{CONFIGS}/bccd/retinanet_ghostnet_small_bccd.py"
MMDET = Path(mmdet.__file__).parent / ".mim/configs"


@pytest.mark.parametrize(
    "option, advice",
    [
        ("metainfo.classes", "mean train_dataloader.dataset.*.metainfo.classes or"),
        ("data_root", "data_root is 1, expected as 'data/"),
        ("mine", "list a key that your own code reads in own_keys"),
        ("model.test_cfg.nms.iou_treshold", "mean model.test_cfg.nms.iou_threshold?"),
        ("default_hooks.loger.interval", "did you mean default_hooks.logger?"),
    ],
)
def test_options(option, advice):
    with pytest.raises(UserError, match=advice):
        load_config(CONFIG, cfg_options={option: 1})


@pytest.mark.parametrize(
    "text, message",
    [
        ("optim_wraper = dict()", "'optim_wraper'.* did you mean 'optim_wrapper'"),
        ("model = dict(backbone=dict(widenfactor=1))", "backbone.widen_factor?"),
        ("model = dict(test_cfg=dict(score_th=0.1))", "model.test_cfg.score_th"),
        ("own_keys = ['mine']\nmine = 1", None),
    ],
)
def test_files(tmp_path, text, message):
    (tmp_path / "own.py").write_text(f"_base_ = {CONFIG!r}\n{text}")
    if message is None:
        load_config(tmp_path / "own.py", cfg_options={"mine": 2})
    else:
        with pytest.raises(UserError, match=message):
            load_config(tmp_path / "own.py")


def test_configs_of_mmdetection():
    for path in sorted(MMDET.glob("*/*r50*.py"))[::8]:
        refuse_misspelt(Config.fromfile(path), [])
