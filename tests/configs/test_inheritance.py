"""Our configs from a project elsewhere, and the six of the paper side by side."""

import pytest
from mmengine.config import Config

from ghostdet import CONFIGS


def test_by_the_line_that_the_docs_show(tmp_path, project):
    line = '_base_ = __import__("ghostdet").CONFIGS + "/retinanet_ghostnet_fpn.py"'
    assert line in (project / "docs/training.md").read_text()
    path = tmp_path / "own.py"
    path.write_text(f"{line}\nmodel = dict(bbox_head=dict(num_classes=2))\n")
    cfg = Config.fromfile(path)
    assert cfg.model.bbox_head.num_classes == 2
    assert cfg.model.backbone.type == "GhostNet"


@pytest.mark.parametrize("detector", ["retinanet", "faster_rcnn"])
@pytest.mark.parametrize("backbone", ["mobilenetv2", "mobilenetv3"])
def test_alike_but_for_the_backbone(detector, backbone):
    ours, theirs = (
        Config.fromfile(f"{CONFIGS}/{detector}_{name}_fpn.py")._cfg_dict.to_dict()
        for name in ("ghostnet", backbone)
    )
    for cfg in (ours, theirs):
        cfg["model"].pop("backbone")
        for key in ("type", "widen_factor", "strides", "in_channels"):
            cfg["model"]["neck"].pop(key, None)
    assert ours == theirs
