import json

import pytest

from ghostdet.analysis.demo import run_demo


@pytest.mark.data
def test_demo(trees_root, project, tmp_path, new_run, capfd):
    """The demo itself, four iterations of it, from the wheel to the last line."""
    config = tmp_path / "short.py"
    config.write_text(
        f"_base_ = {str(project / 'configs/demo/light_s_trees.py')!r}\n"
        "train_cfg = dict(max_iters=4, val_interval=2)\n"
        "default_hooks = dict(checkpoint=dict(interval=4), logger=dict(interval=1))\n"
        "val_dataloader = dict(dataset=dict(indices=1))\n"
        "test_dataloader = val_dataloader\n"
        "model = dict(test_cfg=dict(score_thr=0.0))\n"
    )
    new_run()
    work_dir = tmp_path / "demo"
    result = run_demo(config, work_dir, trees_root, seed=3)
    assert result == json.loads((work_dir / "metrics.json").read_text())
    assert (result["seed"], result["iterations"]) == (3, 4)
    assert 0 <= result["AP"] <= result["AP50"] <= 1
    lines = capfd.readouterr().out.splitlines()
    assert [line[:3] for line in lines[:3]] == ["1/3", "2/3", "3/3"]
    assert len(lines) == 10  # nothing of MMEngine's or pycocotools'
    for name in (
        "curves.png",
        "detections.png",
        "iter_4.pth",
        "log.txt",
        "report/index.html",
    ):
        assert (work_dir / name).stat().st_size > 1000
