"""The table of finished runs, beside the paper's."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ghostdet.analysis.complexity import complexity
from ghostdet.analysis.plots import plot_curves
from ghostdet.analysis.run_log import Run, read_run
from ghostdet.analysis.shipped_configs import (
    WEIGHTS,
    as_in_the_paper,
    flatten,
    same_parts,
    shipped_config,
)
from ghostdet.analysis.tasks import Task
from ghostdet.engine.setup import use_run_components
from ghostdet.errors import UserError
from ghostdet.utils.files import atomic_write, check_writable

#: What may differ between runs of one row: where they write, their seed, and how their
#: processes were started. (What ``auto_scale_lr`` does is seen in the learning rate.)
FREE = (
    "auto_scale_lr",
    "randomness.seed",
    "work_dir",
    "data_root",
    "launcher",
    "env_cfg.dist_cfg",
    "model_wrapper_cfg",
    "find_unused_parameters",
    "resume",
    "log_level",
    "log_processor",
    "visualizer",
    "vis_backends",
    "default_hooks.checkpoint",
    "default_hooks.logger",
    *(
        f"{part}_dataloader.{key}"
        for part in ("train", "val", "test")
        for key in ("num_workers", "persistent_workers", "prefetch_factor")
    ),
    "default_hooks.visualization",
)
FROM_CHECKPOINT = ("load_from", *WEIGHTS)
CURVES = "curves.png"


def write_table(work_dirs: Sequence[str | Path], out: str | Path) -> str:
    """Write ``table.md``, ``table.json`` and ``curves.png`` of finished runs.

    Runs of one config and different seeds make one row; they are of detectors or of
    classifiers. Metrics are those of the last
    evaluation, in percent. Nothing from the work directories is run.

    Args:
        work_dirs: Work directories of ``tools/train.py``.
        out: Folder to write to.

    Returns:
        The text of ``table.md``.

    Raises:
        UserError: If a run is not finished or not evaluated, if runs of one config
            cannot be compared, if there are detectors and classifiers, or ``out``
            cannot be written.
    """
    check_writable(out, "--out")
    runs, problems = [], []
    for work_dir in {Path(path).resolve(): Path(path) for path in work_dirs}.values():
        try:
            run = read_run(work_dir)
            _check_finished(run)
            runs.append(run)
        except UserError as error:
            problems.append(error.text)
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.name, []).append(run)
    problems += filter(None, map(_incomparable, groups.values()))
    kinds = {run.task.kind: run.work_dir for run in runs}
    if len(kinds) > 1:
        (kind, one), (other_kind, other) = kinds.items()
        problems.append(
            f"{one} is of {kind} and {other} of {other_kind}, which make two tables; "
            "give the runs of one kind"
        )
    if problems:
        raise UserError("no table is written:\n" + "\n".join(problems))
    rows = [_row(group) for group in groups.values()]
    text = _markdown(runs[0].task, rows)
    out = Path(out)
    atomic_write(out / "table.json", json.dumps({"rows": rows}, indent=1) + "\n")
    atomic_write(out / "table.md", text)
    _draw(runs, out / CURVES)
    return text


def _check_finished(run: Run) -> None:
    """Refuse what has not trained to its end, or was not evaluated there."""
    config = run.work_dir / f"{run.name}.py"
    if run.trained < run.length:
        start = "python tools/train.py"
        count = ""
        if run.gpus > 1:
            start, count = "tools/dist_train.sh", f" {run.gpus}"
        raise UserError(
            f"{run.work_dir} is at {run.unit} {run.trained} of {run.length}; to go on, "
            f"type {start} {config}{count} --work-dir {run.work_dir} --resume"
        )
    if run.final is None:
        checkpoint = run.work_dir / f"{run.unit}_{run.length}.pth"
        raise UserError(
            f"{run.work_dir} has trained to its end, and what it ended with was not "
            f"evaluated; type python tools/test.py {config} {checkpoint} --work-dir "
            f"{run.work_dir}"
        )


def _incomparable(runs: Sequence[Run]) -> str | None:
    """Say what keeps runs of one config from being seeds of one row."""
    first = runs[0]
    for run in runs:
        for config in run.configs:
            lines = _differences(first.configs[-1], config)
            batches = {*first.batches, *run.batches}
            if len(batches) > 1:
                lines += [f"images an update: {' and '.join(map(str, batches))}"]
            if lines:
                return (
                    f"{first.work_dir} and {run.work_dir} are runs of {run.name} and "
                    "not comparable:\n  " + "\n  ".join(lines) + "\n"
                    "report one without the other"
                    if run is not first
                    else f"{run.work_dir} was resumed otherwise than it was begun:\n  "
                    + "\n  ".join(lines)
                )
    seeds: dict[int | None, Run] = {}
    for run in runs:
        if run.seed in seeds:
            return (
                f"{seeds[run.seed].work_dir} and {run.work_dir} are runs of {run.name} "
                f"with seed {run.seed} both; give one of them"
            )
        seeds[run.seed] = run
    return None


def _differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Name the keys that decide figures in which configs differ, and both values."""
    free = FREE
    if any(config.get("resume") and config.get("load_from") for config in (one, other)):
        free += FROM_CHECKPOINT
    one, other = (flatten(config, free) for config in (one, other))
    return [
        f"{key}: {one.get(key, 'not set')!s:.60} and {other.get(key, 'not set')!s:.60}"
        for key in sorted({*one, *other})
        if one.get(key, "not set") != other.get(key, "not set")
    ]


def _row(runs: Sequence[Run]) -> dict[str, Any]:
    """Make what ``table.json`` holds of the runs of one config."""
    name, task = runs[0].name, runs[0].task
    results = [
        {
            "work_dir": str(run.work_dir),
            "seed": run.seed,
            **{key: _percent(run, metric) for key, metric in task.metrics.items()},
            "seconds": round(run.losses[-1].seconds, 1) if run.losses else None,
            "gpus": run.gpus,
            "device": run.device,
            "global_batch": run.batches[-1],
            "versions": run.versions,
        }
        for run in sorted(runs, key=lambda run: run.seed or 0)
    ]
    row = {"config": name, **_beside_shipped(runs[0])}
    for key in (*task.metrics, "seconds"):
        values = [result[key] for result in results]
        if None in values:
            row[key] = None
            continue
        row[key] = {
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else None,
        }
    if row["paper"] is not None and row[task.heading] is not None:
        row["difference"] = row[task.heading]["mean"] - row["paper"]
    return {**row, "runs": results}


def _percent(run: Run, metric: str) -> float | None:
    """A metric in percent; COCO says -1 where no object is of that size."""
    value = run.final.values.get(metric, -1)
    return None if value < 0 else round(run.task.percent * value, 4)


def _beside_shipped(run: Run) -> dict[str, Any]:
    """Count the model, say what makes the run differ from the shipped config.

    A model of a foreign config is not built: MMEngine imports whatever its ``type``
    names. It is counted where it is that of a config of ours. The paper's figure is
    given where the network, its classes and the size of images are those of ours.
    """
    cfg = shipped_config(run.name)
    result: dict[str, Any] = dict.fromkeys((*run.task.counts, "changed", "paper"))
    if cfg is None:
        return result
    use_run_components(cfg)
    shipped, own = cfg.to_dict(), run.configs[-1]
    result["changed"] = _differences(shipped, own)
    if as_in_the_paper(shipped, own):
        result["paper"] = run.task.paper.get(run.name)
    if same_parts(shipped, own, run.task.parts):
        # Of these, only the sizes of images are read.
        cfg.train_dataloader = own["train_dataloader"]
        cfg.val_dataloader = cfg.test_dataloader = own.get("val_dataloader")
        count = complexity(cfg)
        result |= {key: c.take(count) for key, c in run.task.counts.items()}
    return result


def _markdown(task: Task, rows: Sequence[dict[str, Any]]) -> str:
    """Lay out what ``table.json`` holds."""
    head = ["config", *(count.heading for count in task.counts.values())]
    head += [f"paper, {task.papers}", *task.metrics, "difference"]
    head += ["seeds", "training, s", "GPUs", "global batch"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        runs = row["runs"]
        lines.append(
            [
                row["config"],
                *(_cell(row[key], c.text) for key, c in task.counts.items()),
                _cell(row["paper"], "{:.1f}".format),
                *(_spread(row[key], ".1f") for key in task.metrics),
                _cell(row.get("difference"), "{:+.1f}".format),
                ", ".join(str(run["seed"]) for run in runs),
                _spread(row["seconds"], ".0f"),
                _once(f"{run['gpus']} {run['device']}" for run in runs),
                _once(str(run["global_batch"]) for run in runs),
            ]
        )
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n\n"
    text += (
        "Metrics in percent, of the last evaluation"
        + (", mean ± standard deviation over seeds" if _several(rows) else "")
        + ". Seconds are those of training alone, without starts and evaluations. "
        f"Parameters and multiply-accumulates are of {task.counted}.\n"
    )
    for row in rows:
        if row["changed"]:
            text += (
                f"\n{row['config']} was not run as it is shipped (shipped, run):\n\n"
            )
            text += "".join(f"- `{line}`\n" for line in row["changed"])
    versions = _once(
        ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        for row in rows
        for run in row["runs"]
    )
    return f"{text}\nVersions: {versions}.\n\n![Loss and {task.heading}]({CURVES})\n"


def _several(rows: Sequence[dict[str, Any]]) -> bool:
    return any(len(row["runs"]) > 1 for row in rows)


def _cell(value: Any, text: Callable[[Any], str]) -> str:
    return "-" if value is None else text(value)


def _spread(value: dict[str, float] | None, form: str) -> str:
    if value is None:
        return "-"
    spread = "" if value["std"] is None else f" ± {value['std']:{form}}"
    return f"{value['mean']:{form}}{spread}"


def _once(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _draw(runs: Sequence[Run], path: Path) -> None:
    """Draw loss and the first metric of runs, over epochs where all count epochs."""
    epochs = all(run.epoch_length for run in runs)
    losses, metrics = {}, {}
    for run in runs:
        label = f"{run.name}, seed {run.seed}"
        for lines, points, key in (
            (losses, run.losses, "loss"),
            (metrics, run.evaluations, run.task.metric),
        ):
            lines[label] = (
                [p.iteration / (run.epoch_length if epochs else 1) for p in points],
                [p.values[key] for p in points],
            )
    over = "epochs" if epochs else "iterations"
    plot_curves(losses, metrics, path, over, runs[0].task.held_out)
