"""Tools of MMDetection, by ``ghostdet mmdet``, on a config and a checkpoint of ours."""

import json
import sys

import pytest

from ghostdet_command import main

# Arguments, and what is written or printed.
TOOLS = """
test CONFIG CHECKPOINT --out out.pkl --work-dir run > out.pkl
analysis_tools/confusion_matrix CONFIG out.pkl matrix > matrix/confusion_matrix.png
analysis_tools/analyze_results CONFIG out.pkl results --topk 1 > results/good/*.jpg
analysis_tools/eval_metric.py CONFIG out.pkl > 'coco/bbox_mAP'
analysis_tools/browse_dataset CONFIG --output-dir seen --not-show > seen/train_1.jpg
analysis_tools/get_flops CONFIG --num-images 1 > Params: 0.957M
misc/print_config CONFIG > octave_base_scale
misc/split_coco --data-root CELLS --out-dir semi --labeled-percent 50 --fold 1 > semi/*
dataset_converters/images2coco CELLS/images classes.txt own.json > annotations/own.json
model_converters/publish_model CHECKPOINT published.pth > published*.pth
"""


def test_tools(trained, own_cells, tmp_path, monkeypatch, new_run, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes.txt").write_text("cell\n")
    train = own_cells / "annotations/train.json"
    train.with_name("instances_train2017.json").write_text(
        json.dumps({"info": {}, "licenses": [], **json.loads(train.read_text())})
    )
    places = dict(CELLS=own_cells, CHECKPOINT=trained / "iter_4.pth")
    places["CONFIG"] = trained / "retinanet_ghostnet_small_bccd.py"
    for line in TOOLS.strip().splitlines():
        new_run()
        for name, path in places.items():
            line = line.replace(name, str(path))
        tool, _, expected = line.partition(" > ")
        monkeypatch.setattr(sys, "argv", ["ghostdet", "mmdet", *tool.split()])
        main()
        files = [*tmp_path.glob(expected), *own_cells.glob(expected)]
        assert files or expected in capsys.readouterr().out, line


def test_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ghostdet", "mmdet", "misc/print"])
    with pytest.raises(
        SystemExit, match="analysis_tools/confusion_matrix(.|\n)*no tool"
    ):
        main()
    monkeypatch.setitem(sys.modules, "seaborn", None)
    arguments = ["mmdet", "analysis_tools/analyze_logs", "--help"]
    monkeypatch.setattr(sys, "argv", ["ghostdet", *arguments])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "needs seaborn; type pip install seaborn" in capsys.readouterr().err
