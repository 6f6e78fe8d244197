"""The record of a run, over its starts."""

import json

import pytest
import torch
from unchecked import train

from ghostdet.engine.hooks.run_record import _earlier

OPTIONS = {"default_hooks.logger.interval": 1, "train_cfg.val_interval": 2}


def test_record(tiny, tmp_path):
    path = tmp_path / "run/run.json"
    train(tiny({**OPTIONS, "train_cfg.max_iters": 3}))
    first = json.loads(path.read_text())
    assert first["name"] == "retinanet_ghostnet_small_bccd"
    assert first["config"]["train_dataloader"]["batch_size"] == 2
    assert (first["unit"], first["length"], first["trained"]) == ("iter", 3, 3)
    (start,) = first["starts"]
    assert start["versions"]["torch"] == torch.__version__
    found = start["ranks"], start["images"], start["resumed_from_iter"]
    assert found == (1, 2, 0)
    assert [entry["iter"] for entry in first["losses"]] == [1, 2, 3]
    assert [entry["iter"] for entry in first["evaluations"]] == [2, 3]
    last = first["losses"][-1]
    parts = last["loss_cls"] + last["loss_bbox"]
    assert last["loss"] == pytest.approx(parts, rel=1e-4)

    train(tiny(OPTIONS), resume=str(path.with_name("iter_2.pth")))  # drops the third
    second = json.loads(path.read_text())
    assert second["losses"][:2] == first["losses"][:2]
    assert [entry["iter"] for entry in second["losses"]] == [1, 2, 3, 4]
    assert [entry["iter"] for entry in second["evaluations"]] == [2, 4]
    assert "coco/bbox_mAP" in second["evaluations"][1]
    assert [start["resumed_from_iter"] for start in second["starts"]] == [0, 2]
    seconds = [entry["seconds"] for entry in second["losses"]]
    assert sorted(seconds) == seconds and second["trained"] == 4

    train(tiny({**OPTIONS, "train_cfg.max_iters": 1}))  # from the beginning
    assert len(json.loads(path.read_text())["starts"]) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"losses": [1]}', '{"losses": []}'])
def test_a_damaged_record_is_replaced(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    assert _earlier(str(tmp_path / "iter_2.pth"), 2) == {}
