"""The demo: from photographs to a trained detector, its figures and its pictures."""

from __future__ import annotations

import contextlib
import json
import platform
import sys
import time
from importlib import import_module
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
from ghostdet.analysis.run_log import read_run
from ghostdet.analysis.tasks import AP
from ghostdet.apis.infer import load_detector
from ghostdet.apis.train import train
from ghostdet.config import load_config
from ghostdet.datasets import prepare_trees
from ghostdet.ops import operator_backend
from ghostdet.utils.files import check_writable

SHOWN_SCORE = 0.3  # the lowest score that is drawn


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """A progress bar with the loss and the latest AP50, for runs without a log."""

    priority = "VERY_LOW"  # behind the hooks that compute what it shows

    def before_train(self, runner: Runner) -> None:
        """Start the bar."""
        self.shown: dict[str, str] = {}
        self.bar = tqdm(total=runner.max_iters, unit="iter", dynamic_ncols=True)
        if not sys.stderr.isatty():
            self.bar.mininterval = 30

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Advance the bar."""
        self.shown["loss"] = (
            f"{runner.message_hub.get_scalar('train/loss').mean(20):.2f}"
        )
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update()

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Show the AP50."""
        self.shown["AP50"] = f"{metrics['coco/bbox_mAP_50']:.3f}"

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

    Writes ``metrics.json``, ``curves.png``, ``detections.png``, the checkpoint and
    ``log.txt`` (all that MMEngine says) to the work directory.

    Args:
        config: A config on the data set of :func:`ghostdet.datasets.prepare_trees`.
        work_dir: Where to write.
        data_root: Where the data set is, or is to be made.
        seed: Seed of the run.

    Returns:
        What ``metrics.json`` holds: COCO's AP, AP50, AP75 and AP per size on the
        held-out side, ``seconds`` from start to end, the seed and the versions.

    Raises:
        UserError: If the data cannot be had or a folder cannot be written.
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
        runner = train(cfg)
    metrics = {
        name: runner.message_hub.get_scalar(f"val/coco/bbox_mAP{key}").current()
        for name, key in (
            ("AP", ""),
            ("AP50", "_50"),
            ("AP75", "_75"),
            ("AP_small", "_s"),
            ("AP_medium", "_m"),
            ("AP_large", "_l"),
        )
    }
    print("3/3  Drawing")
    checkpoint = Path((work_dir / "last_checkpoint").read_text().strip())
    _draw_curves(work_dir)
    _draw_photo(cfg, checkpoint, data_root, work_dir / "detections.png")
    result = {
        **{name: float(value) for name, value in metrics.items()},
        "seconds": round(time.time() - start, 1),
        "seed": seed,
        "iterations": runner.iter,
        "operators": operator_backend(),
        "versions": {
            "python": platform.python_version(),
            **{
                name: import_module(name).__version__
                for name in (
                    "ghostdet",
                    "torch",
                    "torchvision",
                    "mmengine",
                    "mmcv",
                    "mmdet",
                    "numpy",
                    "cv2",
                )
            },
        },
    }
    (work_dir / "metrics.json").write_text(json.dumps(result, indent=2) + "\n")
    print(
        f"\nOn the held-out side of the photographs, after {result['seconds']:.0f} s: "
        f"AP {result['AP']:.3f}  AP50 {result['AP50']:.3f}  AP75 {result['AP75']:.3f}\n"
        f"  figures     {work_dir / 'metrics.json'}\n"
        f"  detections  {work_dir / 'detections.png'}\n"
        f"  curves      {work_dir / 'curves.png'}\n"
        f"  checkpoint  {checkpoint}"
    )
    return result


def _draw_curves(work_dir: Path) -> None:
    """Draw loss, AP and AP50 over minutes of training."""
    history = read_run(work_dir)
    lines = [
        ([p.seconds / 60 for p in points], [p.values[key] for p in points])
        for points, key in (
            (history.losses, "loss"),
            (history.evaluations, f"{AP}_50"),
            (history.evaluations, AP),
        )
    ]
    plot_curves(
        {"loss": lines[0]},
        {"AP50": lines[1], "AP": lines[2]},
        work_dir / "curves.png",
        "minutes of training",
    )


def _draw_photo(cfg: Any, checkpoint: Path, data_root: Path, path: Path) -> None:
    """Draw the largest held-out photograph, which the detector takes whole."""
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
    instances = inference_detector(
        load_detector(cfg, checkpoint), str(file)
    ).pred_instances
    shown = instances[instances.scores >= SHOWN_SCORE].cpu().numpy()
    plot_detections(
        cv2.imread(str(file))[:, :, ::-1],
        truth,
        shown.bboxes,
        path,
        title=f"Held-out side of {photo['source']}, detections with a score of "
        f"{SHOWN_SCORE} or more",
    )
