"""The benchmark compares what it says it compares."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("timm")
pytest.importorskip("openvino")
pytest.importorskip("nncf")

from benchmarks import benchmark, loading, render, suites
from benchmarks.networks import backbones
from benchmarks.suites import TIMM
from benchmarks.timing import MATRIX, summarize, take_turns

PROJECT = Path(__file__).parents[2]


def test_runs_take_turns():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = take_turns(runs, rounds=3)
    assert {name: len(values) for name, values in times.items()} == dict(a=3, b=3, c=3)
    # Twice each, once to get warm; the first round is not counted.
    assert "".join(calls) == "aabbccbbccaaccaabbaabbcc"


def test_a_ratio_is_of_one_round():
    """A machine that is slow for a while changes medians, and not ratios."""
    product = [10.0, 100.0, 10.0, 100.0]
    times = {
        "theirs": [4.0, 40.0, 4.0, 40.0],
        "ours": [2.0, 20.0, 2.0, 20.0],
        "ours, bf16": [1.0, 10.0, 1.0, 10.0],
        "matrix product, fp32": product,
        "matrix product, bf16": [t / 2 for t in product],
    }
    macs = dict.fromkeys(["ours", "ours, bf16"], MATRIX**3 // 10)
    rows = {row["name"]: row for row in summarize(times, "theirs", macs)}
    assert [row["speed"] for row in rows.values()] == [1, 2, 4, 0.4, 0.8]
    assert rows["ours"]["median"] == 11
    assert rows["ours"]["quartiles"] == [2, 20]
    assert rows["ours"]["gflops"] == pytest.approx(2 * MATRIX**3 / 10 / 11e-3 / 1e9)
    assert rows["ours"]["peak_share"] == pytest.approx(0.5)
    assert rows["ours, bf16"]["peak_share"] == pytest.approx(0.5)
    assert rows["matrix product, bf16"]["peak_share"] == 1
    assert "peak_share" not in rows["theirs"]


def test_networks_have_their_taps_in_common():
    x = torch.randn(1, 3, 64, 96)
    networks = backbones()
    outs = {}
    for name, network in networks.items():
        network.eval()
        with torch.no_grad():
            outs[name] = network(x)
        sizes = [tuple(out.shape[2:]) for out in outs[name]]
        assert sizes == [(16, 24), (8, 12), (4, 6), (2, 3)], name
    ours, theirs = outs["GhostNet 1.0x"], outs["timm ghostnet_100"]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    # Nothing is computed that is not returned.
    for name, network in networks.items():
        network.train()
        sum(out.sum() for out in network(x)).backward()
        idle = {
            n.split(".")[0] for n, p in network.named_parameters() if p.grad is None
        }
        assert not idle, name


def test_forms_on_a_gpu(monkeypatch):
    """On the CPU, for want of a GPU; nothing is compiled."""
    monkeypatch.setattr(suites, "SIZE", (64, 96))
    monkeypatch.setattr(suites, "GPU", ("cpu",))
    parts, found = [], []
    monkeypatch.setattr(nn.Module, "compile", lambda part, **_: parts.append(part))

    def once(runs, rounds):
        found.extend(runs)
        for name, run in runs.items():
            if "GhostNet" in name or "light M, compiled" in name:
                run()
        return dict.fromkeys(runs, [1.0, 1.0])

    monkeypatch.setattr(suites, "take_turns", once)
    benchmark(["training", "detector_training"], rounds=2)
    theirs = ["eager", "eager, channels-last", "compiled", "channels-last, compiled"]
    for name, form, end in product(
        ["GhostNet 1.0x", TIMM, "RetinaNet", f"light M on {TIMM}"],
        theirs,
        ["", ", bf16"],
    ):
        there = TIMM in name or "last" not in form
        assert (f"{name}, {form}{end}" in found) == there
    assert {"RetinaHead", "GhostPAN", "Tapped"} <= {type(p).__name__ for p in parts}


def test_results_and_their_page(monkeypatch, coco):
    monkeypatch.setattr(suites, "SIZE", (64, 96))
    results = benchmark(["training", "loading"], rounds=4, data_root=coco)
    assert json.loads(json.dumps(results)) == results
    steps, decoders = results["tables"]
    assert {row["name"] for row in steps["rows"]} >= {
        "GhostNet 1.0x, eager",
        "timm ghostnet_100, eager",
        "MMDetection MobileNetV2, eager",
    }
    assert [row["name"] for row in decoders["rows"]] == loading.decoders()
    page = render({**results, "command": "python x.py"})
    assert "    python x.py\n" in page
    assert "| timm ghostnet_100, eager |" in page
    assert "| cv2 |" in page


def test_page_in_the_docs_is_current():
    docs = PROJECT / "docs"
    results = json.loads((docs / "benchmarks.json").read_text())
    assert (docs / "benchmarks.md").read_text() == render(results)
