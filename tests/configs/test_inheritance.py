"""Our configs as bases of a config in another project, as the docs show it."""

import pytest
import torch
from mmengine.config import Config
from timm.models.ghostnet import _create_ghostnet

from ghostdet.checks import check_run
from ghostdet.config import load_config


@pytest.mark.parametrize("page", ["README.md", "docs/own_data.md"])
def test_detector(tmp_path, project, page):
    block = (project / page).read_text().partition("```python\n")[2].partition("```")[0]
    path = tmp_path / "own.py"
    path.write_text(block)
    cfg = Config.fromfile(path)
    classes = cfg.val_dataloader.dataset.metainfo.classes
    assert cfg.model.bbox_head.num_classes == len(classes) == len(cfg.classes)
    assert cfg.model.backbone.type == "GhostNet"
    assert cfg.param_scheduler[1].end == cfg.max_iters


def test_folders_of_classes(tmp_path, project, digit_folders):
    """The example passes the check, with weights from a file."""
    page = (project / "docs/classification.md").read_text()
    section = page.partition("## Your own folders of classes\n")[2]
    block = section.partition("```python\n")[2].partition("```")[0]
    path = tmp_path / "flowers.py"
    path.write_text(block)
    weights = tmp_path / "ghostnet_100.pth"
    torch.save(_create_ghostnet("ghostnet_100").state_dict(), weights)
    options = {
        "model.backbone.init_cfg.checkpoint": str(weights),
        "train_dataloader.batch_size": 8,  # there are few images
    }
    cfg = load_config(path, tmp_path / "run", digit_folders, options)
    findings = {finding.check: finding for finding in check_run(cfg)}
    assert {f.status for f in findings.values()} == {"pass"}, findings
    assert ": loaded" in findings["pretrained weights"].text
    assert "Accuracy" in findings["val evaluator"].text
    assert "0.01 x 8/64" in findings["learning rate"].text
