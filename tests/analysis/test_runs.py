import json

import pytest

from ghostdet.analysis.runs import read_run
from ghostdet.errors import UserError

AP = {"coco/bbox_mAP": 0.25}


@pytest.mark.parametrize(
    "config, unit, iterations",
    [
        ("bccd/retinanet_ghostnet_small_bccd", "iter", 450),
        ("classification/ghostnet_digits", "epoch", 400),
    ],
)
def test_read_run(record, config, unit, iterations):
    run = read_run(record("a", config, AP))
    assert (run.unit, run.iterations, run.finished) == (unit, iterations, True)
    assert run.evaluations[-1]["coco/bbox_mAP"] == 0.25


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="has no run.json, which tools/train.py writes"):
        read_run(tmp_path)
    for text in ("{", "[]", "\x00", json.dumps(dict(name="a"))):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(UserError, match="is not the record of a training run"):
            read_run(tmp_path)
