"""Run the demo: train a detector on photographs, evaluate it and draw its results."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmdet.apis import inference_detector
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from tqdm import tqdm

from ghostdet.analysis.plots import plot_curves, plot_detections
from ghostdet.analysis.report_page import write_report
from ghostdet.analysis.runs import Run, read_run
from ghostdet.apis.infer import load_detector
from ghostdet.apis.test import test
from ghostdet.apis.train import train
from ghostdet.config import load_config
from ghostdet.datasets import prepare_trees
from ghostdet.utils.files import check_writable

SHOWN_SCORE = 0.3  # the lowest score that is drawn
AP = "coco/bbox_mAP"
METRICS = dict(AP="", AP50="_50", AP75="_75")
METRICS |= dict(AP_small="_s", AP_medium="_m", AP_large="_l")


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """A progress bar with the loss and the latest AP50, for runs without a log."""

    priority = "VERY_LOW"  # after the hooks that compute what it shows

    def before_train(self, runner: Runner) -> None:
        """Start the bar."""
        self.shown: dict[str, str] = {}
        hidden = getattr(runner, "rehearses", False)  # in the check
        total = runner.max_iters
        self.bar = tqdm(total=total, unit="iter", dynamic_ncols=True, disable=hidden)
        if not sys.stderr.isatty():
            self.bar.mininterval = 30

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        loss = runner.message_hub.get_scalar("train/loss").mean(20)
        self.shown["loss"] = f"{loss:.2f}"
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Show the AP50."""
        self.shown["AP50"] = f"{metrics.get(AP + METRICS['AP50'], 0):.3f}"

    def after_train(self, runner: Runner) -> None:
        """Close the bar."""
        self.bar.close()


def run_demo(
    config: str | Path,
    work_dir: str | Path = "work_dirs/demo",
    data_root: str | Path = "data/trees",
    seed: int = 0,
) -> dict[str, Any]:
    """Train and evaluate a detector of tree crowns from scratch.

    Writes ``metrics.json``, ``curves.png``, ``detections.png``, ``report/`` (a page on
    what the detector gets wrong), the checkpoint and ``log.txt`` (MMEngine's log) to
    the work directory.

    Args:
        config: A config for the dataset of :func:`ghostdet.datasets.prepare_trees`.
        work_dir: Folder to write to.
        data_root: Folder of the dataset, which is made if it is missing.
        seed: Seed of the run.

    Returns:
        The content of ``metrics.json``: COCO's AP, AP50, AP75 and AP per size on the
        held-out side, ``seconds`` from start to end, the seed and the versions.

    Raises:
        UserError: If the dataset cannot be made, or a folder cannot be written.
    """
    start = time.time()
    work_dir = Path(work_dir)
    check_writable(work_dir)
    print("1/3  Photographs of trees, labelled (DeepForest, MIT licence)")
    data_root = prepare_trees(data_root)
    cfg = load_config(config, work_dir=work_dir, data_root=data_root)
    cfg.randomness.seed = seed
    cfg.custom_hooks.append(dict(type="ProgressBarHook"))
    backbone = cfg.model.backbone
    print(
        f"2/3  Training {cfg.model.type} on {backbone.type} {backbone.widen_factor}x "
        f"from scratch, seed {seed} (log: {work_dir / 'log.txt'})"
    )
    with open(work_dir / "log.txt", "w") as log, contextlib.redirect_stdout(log):
        train(cfg)
    print("3/3  Evaluating and drawing")
    run = read_run(work_dir)
    checkpoint = work_dir / Path((work_dir / "last_checkpoint").read_text()).name
    results = work_dir / "report/results"
    cfg.visualizer.name = "evaluation"  # the training has the other
    with open(work_dir / "log.txt", "a") as log, contextlib.redirect_stdout(log):
        test(cfg, checkpoint, results=str(results))
    report = write_report(cfg, f"{results}.bbox.json", results.parent)
    _draw_curves(run, work_dir / "curves.png")
    _draw_photo(cfg, checkpoint, data_root, work_dir / "detections.png")
    result = {
        **{name: run.evaluations[-1][f"{AP}{key}"] for name, key in METRICS.items()},
        "seconds": round(time.time() - start, 1),
        "seed": seed,
        "iterations": run.trained,
        "versions": run.starts[-1]["versions"],
    }
    (work_dir / "metrics.json").write_text(json.dumps(result, indent=2) + "\n")
    print(
        f"\nOn the held-out side of the photographs, after {result['seconds']:.0f} s: "
        f"AP {result['AP']:.3f}  AP50 {result['AP50']:.3f}  AP75 {result['AP75']:.3f}\n"
        f"  figures     {work_dir / 'metrics.json'}\n"
        f"  detections  {work_dir / 'detections.png'}\n"
        f"  curves      {work_dir / 'curves.png'}\n"
        f"  its errors  {report}\n"
        f"  checkpoint  {checkpoint}"
    )
    return result


def _draw_curves(run: Run, path: Path) -> None:
    """Draw loss, AP and AP50 over minutes of training."""

    def line(points: list[dict[str, float]], key: str) -> tuple:
        return [p["seconds"] / 60 for p in points], [p[key] for p in points]

    metrics = {
        name: line(run.evaluations, AP + METRICS[name]) for name in ("AP50", "AP")
    }
    losses = {"loss": line(run.losses, "loss")}
    plot_curves(losses, metrics, path, "minutes of training")


def _draw_photo(cfg: Any, checkpoint: Path, data_root: Path, path: Path) -> None:
    """Draw detections on the largest held-out photograph, in one piece."""
    file = data_root / "annotations/instances_photos.json"
    coco = json.loads(file.read_text())
    photo = max(coco["images"], key=lambda i: i["width"] * i["height"])
    file = data_root / "photos" / photo["file_name"]
    truth = [
        a["bbox"]
        for a in coco["annotations"]
        if a["image_id"] == photo["id"] and not a["iscrowd"]
    ]
    truth = np.array(truth, np.float32)
    truth[:, 2:] += truth[:, :2]
    detected = inference_detector(load_detector(cfg, checkpoint), str(file))
    instances = detected.pred_instances
    shown = instances[instances.scores >= SHOWN_SCORE].cpu().numpy()
    plot_detections(
        cv2.imread(str(file))[:, :, ::-1],
        truth,
        shown.bboxes,
        path,
        title=f"Held-out side of {photo['source']}, detections with a score of "
        f"{SHOWN_SCORE} or more",
    )
