"""Lay finished runs out in a table beside the paper's figures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ghostdet.analysis import paper
from ghostdet.analysis.macs import complexity
from ghostdet.analysis.plots import plot_curves
from ghostdet.analysis.runs import Run, read_run
from ghostdet.errors import UserError
from ghostdet.utils.components import is_classifier, type_name
from ghostdet.utils.files import atomic_write, check_writable
from ghostdet.weights.publish import without_weights
from ghostdet.weights.published import check_description

#: Keys that may differ between the runs of one row: seed, paths, launcher and logging.
#: The effect of ``auto_scale_lr`` shows in the learning rate.
FREE = (
    "auto_scale_lr",
    "randomness.seed",
    "work_dir",
    "launcher",
    "env_cfg.dist_cfg",
    "model_wrapper_cfg",
    "find_unused_parameters",
    "resume",
    "log_level",
    "log_processor",
    "visualizer",
    "vis_backends",
    "train_cfg.type",  # which training replaces by a loop that resumes
    "default_hooks.checkpoint",
    "default_hooks.logger",
    "default_hooks.visualization",
    *(
        f"{part}_dataloader.{key}"
        for part in ("train", "val", "test")
        for key in ("num_workers", "persistent_workers", "prefetch_factor")
    ),
)
#: Hooks that every run gets, without options that matter.
RUN_HOOKS = ("CheckpointGuardHook", "GracefulStopHook", "RunRecordHook")
#: Keys that a resumed run does not use: all weights come from its checkpoint.
FROM_CHECKPOINT = ("load_from", "model.backbone.init_cfg")
CURVES = "curves.png"


@dataclass(frozen=True)
class Task:
    """The metrics, figures and counts of detectors, or of classifiers."""

    kind: str
    metrics: dict[str, str]  # by column; the first is drawn, and the paper has it
    percent: float  # factor from a metric to percent
    drawn: str  # title of the curves
    paper: tuple[str, dict[str, float]]  # column, and figures in percent by config
    # Columns by key in table.json, with functions that take and write the count.
    counts: dict[str, tuple[str, Callable[[dict], Any], Callable[[Any], str]]]
    counted: str  # the same in words


def _millions(digits: int) -> Callable[[int], str]:
    return lambda value: f"{value * 1e-6:.{digits}f}M"


DETECTION = Task(
    kind="a detector",
    metrics={
        "AP": "coco/bbox_mAP",
        "AP50": "coco/bbox_mAP_50",
        "AP75": "coco/bbox_mAP_75",
        "APs": "coco/bbox_mAP_s",
        "APm": "coco/bbox_mAP_m",
        "APl": "coco/bbox_mAP_l",
    },
    percent=100,
    drawn="Held-out AP",
    paper=("paper, mAP", paper.COCO),
    counts={
        "params": (
            "backbone, params",
            lambda count: count["params"]["backbone"],
            _millions(2),
        ),
        "macs_224": (
            "backbone, MACs at 224x224",
            lambda count: count["backbone_macs_224"],
            _millions(1),
        ),
    },
    counted="the backbone up to its last feature level",
)
CLASSIFICATION = Task(
    kind="a classifier",
    metrics={"top-1": "accuracy/top1", "top-5": "accuracy/top5"},
    percent=1,
    drawn="Held-out top-1, %",
    paper=(
        "paper, top-1",
        {name: top1 for name, (_, _, top1) in paper.CLASSIFIERS.items()},
    ),
    counts={
        "shape": ("image", lambda count: count["shape"], "{0[0]}x{0[1]}".format),
        "params": ("params", lambda count: count["params"]["total"], _millions(2)),
        "macs": ("MACs", lambda count: count["macs"]["total"], _millions(1)),
    },
    counted="the classifier, on images of the size it is evaluated on",
)


def write_table(work_dirs: Sequence[str | Path], out: str | Path) -> str:
    """Write ``table.md``, ``table.json`` and ``curves.png`` of finished runs.

    Runs of one config with different seeds make one row. Metrics are from the last
    evaluation, in percent. Nothing from the work directories is run.

    Args:
        work_dirs: Work directories of ``tools/train.py``, all of detectors or all of
            classifiers.
        out: Folder to write to.

    Returns:
        The text of ``table.md``.

    Raises:
        UserError: If a run is not finished, if runs cannot be compared, or if ``out``
            cannot be written.
    """
    check_writable(out, "--out")
    groups: dict[str, list[Run]] = {}
    problems = []
    for work_dir in {Path(path).resolve(): path for path in work_dirs}.values():
        try:
            run = read_run(work_dir)
            _check_finished(run)
            groups.setdefault(run.name, []).append(run)
        except UserError as error:
            problems.append(error.text)
    runs = [run for group in groups.values() for run in group]
    problems += filter(None, map(_incomparable, groups.values()))
    kinds = {_task(run).kind: run.work_dir for run in runs}
    if len(kinds) > 1:
        listed = " and ".join(f"{path} has {kind}" for kind, path in kinds.items())
        problems.append(f"{listed}: make a table of each kind")
    if problems:
        raise UserError("no table is written:\n" + "\n".join(problems))
    task = _task(runs[0])
    rows = [_row(task, group) for group in groups.values()]
    text = _markdown(task, rows)
    out = Path(out)
    atomic_write(out / "table.json", json.dumps({"rows": rows}, indent=1) + "\n")
    atomic_write(out / "table.md", text)
    _draw(task, runs, out / CURVES)
    return text


def _task(run: Run) -> Task:
    return CLASSIFICATION if is_classifier(run.config) else DETECTION


def _check_finished(run: Run) -> None:
    if run.finished:
        return
    ranks = run.starts[-1]["ranks"]
    start, count = "python tools/train.py", ""
    if ranks > 1:
        start, count = "tools/dist_train.sh", f" {ranks}"
    evaluated = "" if run.trained < run.iterations else " and was not evaluated there"
    raise UserError(
        f"{run.work_dir} has trained {run.trained} of {run.iterations} iterations"
        f"{evaluated}; to finish it, type {start} {run.work_dir}/{run.name}.py{count} "
        f"--work-dir {run.work_dir} --resume"
    )


def _incomparable(runs: Sequence[Run]) -> str | None:
    """Say why runs of one config are not seeds of one row."""
    first, seeds = runs[0], {}
    for run in runs:
        lines = _changes(first.config, run.config)
        batches = {start["images"] for start in (*first.starts, *run.starts)}
        if len(batches) > 1:
            lines.append(
                f"images per update: {' and '.join(map(str, sorted(batches)))}"
            )
        if lines:
            return (
                f"{first.work_dir} and {run.work_dir} are runs of {run.name} and not "
                "comparable:\n  " + "\n  ".join(lines) + "\nmake a table of each"
            )
        seed = run.starts[0]["seed"]
        if seed in seeds:
            return (
                f"{seeds[seed]} and {run.work_dir} are both runs of {run.name} with "
                f"seed {seed}; give one of them"
            )
        seeds[seed] = run.work_dir
    return None


def _changes(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """List the keys that differ between two configs, with both values."""
    resumed = any(c.get("resume") and c.get("load_from") for c in (one, other))
    free = FREE + FROM_CHECKPOINT * resumed
    changed = paper.differences(_own_hooks(one), _own_hooks(other), free)
    return [f"{key}: {a!s:.60} and {b!s:.60}" for key, (a, b) in changed.items()]


def _own_hooks(config: dict[str, Any]) -> dict[str, Any]:
    hooks = [
        hook
        for hook in config.get("custom_hooks") or []
        if type_name(hook["type"]) not in RUN_HOOKS or "allow" in hook
    ]
    return {**config, "custom_hooks": hooks}


def _row(task: Task, runs: Sequence[Run]) -> dict[str, Any]:
    """Make the row of ``table.json`` for the runs of one config."""
    runs = sorted(runs, key=lambda run: run.starts[0]["seed"] or 0)
    results = [
        {
            "work_dir": str(run.work_dir),
            "seed": run.starts[0]["seed"],
            **{key: _percent(task, run, name) for key, name in task.metrics.items()},
            "seconds": round(run.evaluations[-1]["seconds"], 1),
            "gpus": run.starts[-1]["ranks"],
            "device": run.starts[-1]["device"],
            "global_batch": run.starts[-1]["images"],
            "versions": run.starts[-1]["versions"],
        }
        for run in runs
    ]
    row = {"config": runs[0].name, **_beside_shipped(task, runs[0])}
    for key in (*task.metrics, "seconds"):
        row[key] = _over_seeds([result[key] for result in results])
    row["classes"] = {
        key.removeprefix("coco/").removesuffix("_precision"): _over_seeds(
            [_percent(task, run, key) for run in runs]
        )
        for key in runs[0].evaluations[-1]
        if key.endswith("_precision")  # CocoMetric with classwise=True
    }
    first = row[next(iter(task.metrics))]
    if row["paper"] is not None and first is not None:
        row["difference"] = first["mean"] - row["paper"]
    return {**row, "runs": results}


def _over_seeds(values: Sequence[float | None]) -> dict[str, float | None] | None:
    if None in values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std}


def _percent(task: Task, run: Run, metric: str) -> float | None:
    """Give a metric in percent, None without objects (COCO: -1, or NaN by class)."""
    value = run.evaluations[-1].get(metric, -1)
    return round(task.percent * value, 4) if value >= 0 else None


def _beside_shipped(task: Task, run: Run) -> dict[str, Any]:
    """Count the model, and list the changes to the shipped config."""
    cfg = paper.shipped_config(run.name)
    result: dict[str, Any] = dict.fromkeys((*task.counts, "changed", "paper"))
    if cfg is not None:
        result["changed"] = _changes(cfg.to_dict(), run.config)
        if paper.applies(paper.differences(cfg.to_dict(), run.config)):
            result["paper"] = task.paper[1].get(run.name)
    model = without_weights(run.config["model"])
    try:
        # MMEngine imports whatever a `type` names.
        check_description(dict(model=model, pipeline=[]))
        count = complexity(Config({**run.config, "model": model}))
    except (UserError, ValueError):
        return result
    return {**result, **{k: take(count) for k, (_, take, _) in task.counts.items()}}


def _markdown(task: Task, rows: Sequence[dict[str, Any]]) -> str:
    """Lay out the rows of ``table.json``."""
    head = ["config", *(heading for heading, _, _ in task.counts.values())]
    head += [task.paper[0], *task.metrics, "difference"]
    head += ["seeds", "training, s", "GPUs", "global batch"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        runs = row["runs"]
        lines.append(
            [
                row["config"],
                *(_cell(row[key], text) for key, (_, _, text) in task.counts.items()),
                _cell(row["paper"], "{:.1f}".format),
                *(_spread(row[key], ".1f") for key in task.metrics),
                _cell(row.get("difference"), "{:+.1f}".format),
                ", ".join(str(run["seed"]) for run in runs),
                _spread(row["seconds"], ".0f"),
                _once(f"{run['gpus']} {run['device']}" for run in runs),
                _once(str(run["global_batch"]) for run in runs),
            ]
        )
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    seeds = any(len(row["runs"]) > 1 for row in rows)
    text += (
        "\n\nMetrics in percent, from the last evaluation"
        f"{', mean ± standard deviation over seeds' * seeds}. Seconds count training "
        "alone, without starts and evaluations. Parameters and multiply-accumulates "
        f"cover {task.counted}.\n"
    )
    for row in rows:
        if row["changed"]:
            text += f"\n{row['config']} was changed (as shipped and as run):\n\n"
            text += "".join(f"- `{line}`\n" for line in row["changed"])
        if row["classes"]:
            text += (
                f"\nAP of {row['config']} by class:\n\n| class | AP |\n| --- | --- |\n"
            )
            for name, value in row["classes"].items():
                text += f"| {name} | {_spread(value, '.1f')} |\n"
    versions = _once(
        ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        for row in rows
        for run in row["runs"]
    )
    return f"{text}\nVersions: {versions}.\n\n![{task.drawn} and loss]({CURVES})\n"


def _cell(value: Any, text: Callable[[Any], str]) -> str:
    return "-" if value is None else text(value)


def _spread(value: dict[str, float] | None, form: str) -> str:
    if value is None:
        return "-"
    spread = "" if value["std"] is None else f" ± {value['std']:{form}}"
    return f"{value['mean']:{form}}{spread}"


def _once(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _draw(task: Task, runs: Sequence[Run], path: Path) -> None:
    """Draw loss and the first metric, over epochs if all runs count epochs."""
    epochs = all(run.unit == "epoch" for run in runs)
    metric = next(iter(task.metrics.values()))
    losses, metrics = {}, {}
    for run in runs:
        for lines, points, key in (
            (losses, run.losses, "loss"),
            (metrics, run.evaluations, metric),
        ):
            points = [p for p in points if key in p]  # nothing may have been detected
            lines[f"{run.name}, seed {run.starts[0]['seed']}"] = (
                [p["iter"] / (run.epoch_length if epochs else 1) for p in points],
                [p[key] for p in points],
            )
    over = "epochs" if epochs else "iterations"
    plot_curves(losses, metrics, path, over, task.drawn)
