"""What a run has written to its work directory, read without running any of it."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ghostdet.analysis.tasks import Task, task_of
from ghostdet.engine.batch_size import GlobalBatch
from ghostdet.errors import UserError

#: Lines of MMEngine's log, and of its summary of the environment.
LOGGED = {
    "seed": r"^    seed: (\d+)$",
    "gpus": r"^    GPU number: (\d+)$",  # processes, on a CPU as well
    "device": r"^    GPU 0[\d,]*: (.+)$",
    "resumed": r"resumed epoch: \d+, iter: (\d+)",
    "epoch_length": r"Epoch\(train\) +\[\d+\]\[ *\d+/(\d+)\]",
    "python": r"^    Python: (\S+)",
    "torch": r"^    PyTorch: (\S+)",
    "torchvision": r"^    TorchVision: (\S+)",
    "mmengine": r"^    MMEngine: (\S+)",
}
#: What an evaluation depends on.
EVALUATED = ("model", "data_root", "load_from", "val_dataloader", "val_evaluator")
VERSIONS = ("python", "torch", "torchvision", "mmengine")


@dataclass(frozen=True)
class Point:
    """What was logged at one moment of a run.

    Attributes:
        iteration: Iterations done by then.
        seconds: Seconds of training by then, evaluations and starts not counted.
        values: What was logged: ``loss``, or metrics such as ``coco/bbox_mAP``.
    """

    iteration: int
    seconds: float
    values: dict[str, float]


@dataclass
class Run:
    """A run, from one start or from several that each resumed the one before.

    Attributes:
        work_dir: Where it wrote.
        name: Name of its config, without ``.py``.
        configs: The resolved config of every start that it is made of.
        losses: Of training, in order.
        evaluations: With its task's metrics, in order.
        trained: Epochs or iterations done, as its config counts them.
        seed: Its seed.
        gpus: Number of processes, one a GPU; at a CPU likewise.
        device: Name of the GPU, ``'CPU'`` without one.
        batches: Images an update, on all GPUs together, of every start.
        epoch_length: Iterations an epoch, None if the run counts no epochs.
        versions: Of Python, torch, torchvision and MMEngine, at the latest start.
    """

    work_dir: Path
    name: str
    configs: list[dict[str, Any]]
    losses: list[Point] = field(default_factory=list)
    evaluations: list[Point] = field(default_factory=list)
    trained: int = 0
    seed: int | None = None
    gpus: int = 1
    device: str = "CPU"
    batches: list[int] = field(default_factory=list)
    epoch_length: int | None = None
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """What it trains, by the type of its model."""
        return task_of(self.configs[-1])

    @property
    def unit(self) -> str:
        """``'epoch'`` or ``'iter'``, what the run counts."""
        return "epoch" if "max_epochs" in self.configs[-1]["train_cfg"] else "iter"

    @property
    def length(self) -> int:
        """Epochs or iterations that its config asks for."""
        return self.configs[-1]["train_cfg"][f"max_{self.unit}s"]

    @property
    def iterations(self) -> int:
        """Iterations that its config asks for."""
        return self.length * (self.epoch_length or 1)

    @property
    def final(self) -> Point | None:
        """The evaluation of what it ended with, None if there is none."""
        for point in self.evaluations:
            if point.iteration >= self.iterations:
                return point
        return None


def read_run(work_dir: str | Path) -> Run:
    """Read a run of ``tools/train.py`` from its work directory.

    A resumed run has a folder for every start. They are joined: what was logged behind
    the point from which a later start went on is dropped, since it was done again. A
    start from the beginning replaces all before it. An evaluation of the last
    checkpoint by ``tools/test.py`` counts as the run's own if it is on the same data.

    Nothing is run: a config is Python, and is read as the literals that MMEngine writes
    (:func:`read_dumped_config`); checkpoints are not opened.

    Args:
        work_dir: A work directory, from anywhere.

    Raises:
        UserError: If it holds no run, or a file of it cannot be read.
    """
    work_dir = Path(work_dir)
    names = sorted(path.stem for path in work_dir.glob("*.py"))
    if len(names) != 1:
        raise UserError(
            f"{work_dir} holds {len(names)} configs ({', '.join(names) or 'none'}), "
            "expected the one that tools/train.py writes; give the work directory of "
            "one run"
        )
    run = Run(work_dir, names[0], [])
    tests = []
    for file in sorted(work_dir.glob("*/vis_data/config.py")):
        folder = file.parents[1]
        if (file.parent / "scalars.json").is_file():
            _join(run, folder)
        else:
            tests.append(folder)
    if not run.configs:
        raise UserError(
            f"{work_dir} holds no run: no */vis_data/scalars.json, which training "
            "writes; give a work directory of tools/train.py"
        )
    run.trained = _trained(run)
    for folder in tests:
        _add_test(run, folder)
    return run


def read_dumped_config(path: str | Path) -> dict[str, Any]:
    """Read a config that MMEngine wrote, without running it.

    Such a file assigns literals and calls of ``dict`` on them; else it is refused.

    Args:
        path: A file that ``Config.dump`` wrote, from anywhere.

    Raises:
        UserError: If it cannot be read, or is more than literals.
    """
    try:
        config = {}
        for node in ast.parse(Path(path).read_text()).body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    config[name] = ast.literal_eval(_Dicts().visit(value))
                case _:
                    raise ValueError(f"line {node.lineno} is not an assignment")
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise UserError(
            f"{path} is not a config that MMEngine wrote ({error}); it is read as "
            "literals and not run; give a work directory as tools/train.py left it"
        ) from error
    return config


class _Dicts(ast.NodeTransformer):
    """Writes ``dict(a=1)`` and ``dict({'a': 1})`` as ``{'a': 1}``, a literal."""

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: D102
        match self.generic_visit(node):
            case ast.Call(ast.Name("dict"), args=[ast.Dict() as only], keywords=[]):
                return only
            case ast.Call(ast.Name("dict"), args=[], keywords=keywords) if all(
                keyword.arg for keyword in keywords
            ):
                keys = [ast.Constant(keyword.arg) for keyword in keywords]
                return ast.Dict(keys, [keyword.value for keyword in keywords])
        return node


def _join(run: Run, folder: Path) -> None:
    """Add a start to a run, in place of what it did again."""
    rows = _read_scalars(folder / "vis_data/scalars.json")
    if not rows:
        return
    config = _training_config(folder)
    logged = _read_log(folder / f"{folder.name}.log")
    begin = int(logged.get("resumed", 0))
    if begin == 0:
        run.configs, run.losses, run.evaluations, run.batches = [], [], [], []
    run.losses = [point for point in run.losses if point.iteration <= begin]
    run.evaluations = [point for point in run.evaluations if point.iteration <= begin]
    run.configs.append(config)
    run.gpus = int(logged.get("gpus", 1))
    loader = config["train_dataloader"]
    batch = GlobalBatch(
        run.gpus,
        loader.get("batch_size") or loader["batch_sampler"]["batch_size"],
        config["optim_wrapper"].get("accumulative_counts", 1),
    )
    run.batches.append(batch.total)
    run.device = logged.get("device", "CPU")
    run.versions = {name: logged.get(name, "unknown") for name in VERSIONS}
    seed = (config.get("randomness") or {}).get("seed")
    run.seed = int(logged["seed"]) if seed is None and "seed" in logged else seed
    if run.unit == "epoch":
        run.epoch_length = int(logged.get("epoch_length", 0)) or run.epoch_length
    hook = (config.get("default_hooks") or {}).get("logger") or {}
    by_epoch = hook.get("log_metric_by_epoch", True)
    iteration = begin
    seconds = run.losses[-1].seconds if run.losses else 0.0
    last = run.losses[-1].iteration if run.losses else 0
    for row in rows:
        if "loss" in row:
            iteration = int(row["step"])
            seconds += row.get("time", 0.0) * (iteration - last)
            last = iteration
            run.losses.append(Point(iteration, seconds, row))
        elif run.task.metric in row:
            if not by_epoch:
                iteration = int(row["step"])
            elif run.epoch_length:
                iteration = int(row["step"]) * run.epoch_length
            run.evaluations.append(Point(iteration, seconds, row))


def _add_test(run: Run, folder: Path) -> None:
    """Add an evaluation by ``tools/test.py`` of what the run ended with."""
    file = folder / f"{folder.name}.json"
    if not file.is_file() or run.trained < run.length or run.final is not None:
        return
    rows = _read_scalars(file)
    config = read_dumped_config(folder / "vis_data/config.py")
    same = all(
        config.get(f"test_{part}") == config.get(f"val_{part}")
        for part in ("dataloader", "evaluator")
    )
    tested = Path(str(config.get("load_from"))).name
    evaluated = bool(rows) and run.task.metric in rows[0]
    if same and tested == _last_checkpoint(run) and evaluated:
        used = {key: config[key] for key in EVALUATED if key in config}
        # Like a resumed start, it takes its weights from the checkpoint.
        run.configs.insert(0, {**run.configs[-1], **used, "resume": True})
        seconds = run.losses[-1].seconds if run.losses else 0.0
        run.evaluations.append(Point(run.iterations, seconds, rows[0]))


def _trained(run: Run) -> int:
    """Epochs or iterations that are done."""
    done = [point.iteration for point in (*run.losses, *run.evaluations)]
    trained = max(done, default=0)
    if run.unit == "epoch":
        trained = trained // run.epoch_length if run.epoch_length else 0
    saved = re.search(rf"{run.unit}_(\d+)\.pth$", _last_checkpoint(run))
    return max(trained, int(saved[1]) if saved else 0)


def _last_checkpoint(run: Run) -> str:
    """Name of the checkpoint that was written last, empty if there is none."""
    file = run.work_dir / "last_checkpoint"
    return Path(file.read_text().strip()).name if file.is_file() else ""


def _training_config(folder: Path) -> dict[str, Any]:
    path = folder / "vis_data/config.py"
    config = read_dumped_config(path)
    for key in ("model", "train_cfg", "train_dataloader", "optim_wrapper"):
        if not isinstance(config.get(key), dict):
            raise UserError(f"{path} has no {key}; give a work directory of training")
    if not {"max_epochs", "max_iters"} & config["train_cfg"].keys():
        raise UserError(f"{path} says neither max_epochs nor max_iters in train_cfg")
    return config


def _read_scalars(path: Path) -> list[dict[str, float]]:
    """Read a JSON object a line; the last may be cut, where a run was killed."""
    rows: list[dict[str, float]] = []
    lines = path.read_text(errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise UserError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: not what MMEngine writes")
        rows.append({k: v for k, v in row.items() if isinstance(v, (int, float))})
    return rows


def _read_log(path: Path) -> dict[str, str]:
    """Read what :data:`LOGGED` names, as far as it is there."""
    if not path.is_file():
        raise UserError(
            f"no log at {path}, which says how many GPUs a run had and where it "
            "resumed; copy the whole work directory"
        )
    text = path.read_text(errors="replace")
    found = {k: re.search(pattern, text, re.M) for k, pattern in LOGGED.items()}
    return {key: match[1] for key, match in found.items() if match}
