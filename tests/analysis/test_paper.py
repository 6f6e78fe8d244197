import re
from pathlib import Path

import pytest

from ghostdet import CONFIGS
from ghostdet.analysis import paper


def test_figures_of_detectors(project):
    """The configs, the model zoo and the table state the same figures."""
    zoo = (project / "docs/model_zoo.md").read_text()
    for name, figure in paper.COCO.items():
        assert f"mAP {figure}." in Path(CONFIGS, f"{name}.py").read_text()
        assert re.search(rf"`{name}.py` \| [^|]+ \| {figure} \|", zoo)


def test_differences():
    one = dict(data_root="a/", file="a/b", n=[1, (2, 3)], same=None, m=dict(x=1, y=2))
    other = dict(data_root="c", file="c/b", n=[1, [2, 4]], same=None, m=dict(x=1))
    found = paper.differences(one, other)
    assert found == {"n.1.1": (3, 4), "m.y": (2, "not set")}
    assert list(paper.differences(one, other, free=["m", "n.1.1"])) == []
    assert list(paper.differences(one, other, free=["n.1.11", "m.yy"])) == list(found)


@pytest.mark.parametrize(
    "key, applies",
    [
        ("optim_wrapper.optimizer.lr", True),
        ("model.backbone.init_cfg.checkpoint", True),
        ("model.head.label_smoothing", True),
        ("model.type", True),
        ("train_dataloader.batch_size", True),
        ("model.backbone.widen_factor", False),
        ("model.roi_head.bbox_head.num_classes", False),
        ("train_dataloader.dataset.pipeline.0.size", False),
        ("val_dataloader.dataset.datasets.1.pipeline.1.scale.0", False),
    ],
)
def test_when_the_papers_figures_apply(key, applies):
    assert paper.applies(["work_dir", key]) == applies
