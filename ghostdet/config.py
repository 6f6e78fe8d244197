"""Configs from the command line."""

from __future__ import annotations

import json
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ghostdet._values import giving
from ghostdet.errors import ConfigError, UserError
from ghostdet.utils.components import is_classifier, type_name, walk
from ghostdet.utils.misspelt import refuse_misspelt
from ghostdet.weights.published import DESCRIPTION, WEIGHTS, load_published

COCO_LAYOUT = (
    "annotations/instances_train2017.json, annotations/instances_val2017.json, "
    "train2017/, val2017/"
)
IMAGENET_LAYOUT = "train/CLASS/*.JPEG, val/CLASS/*.JPEG"


# Programs that start the processes of a run, and a variable that each sets.
_LAUNCHERS = {
    "pytorch": ("torchrun", "RANK"),
    "slurm": ("srun", "SLURM_PROCID"),
    "mpi": ("mpirun", "OMPI_COMM_WORLD_RANK"),
}


def load_config(
    path: str | Path,
    work_dir: str | Path | None = None,
    data_root: str | Path | None = None,
    cfg_options: dict[str, Any] | None = None,
    launcher: str = "none",
) -> Config:
    """Read a config and apply what the command line overrides.

    Args:
        path: A config file, or published weights, or the ``.json`` file beside them,
            which is data and executes nothing
            (:func:`~ghostdet.weights.published.load_published`).
        work_dir: Where the run writes. Defaults to the config's own ``work_dir``, then
            to ``work_dirs/`` and the config's name, as in MMDetection.
        data_root: Folder of the dataset, which replaces the config's own.
        cfg_options: Dotted keys and values to merge into the config.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Returns:
        The config, ready for MMEngine's Runner.

    Raises:
        UserError: If the file is missing or not a config, an option does not fit it,
            a key has no effect (:func:`~ghostdet.utils.misspelt.refuse_misspelt`), or
            ``launcher`` did not start this process.
    """
    published = Path(path).suffix in (WEIGHTS, DESCRIPTION)
    options = dict(cfg_options or {})
    with giving(options) as asked:
        cfg = load_published(Path(path)) if published else _run_config(path)
    for name, value in asked.items():
        # The model of a COCO config asks for classes, and its dataset does not.
        derived = name in options or "data_root" in asked
        if derived and name in cfg and cfg[name] != value:
            raise UserError(
                f"{path} sets {name}, which its base reads: end the file with "
                '__import__("ghostdet").derive(globals()), or rename it'
            )
        if options.pop(name, value) != value and name not in cfg:
            raise UserError(
                f"--cfg-options {name} changes only a part of {path}; it is for "
                "configs on configs/own/ (docs/own_data.md)"
            )
    program, variable = _LAUNCHERS.get(launcher, (None, None))
    if program and variable not in os.environ:
        raise UserError(
            f"--launcher {launcher} is for processes that {program} starts, and it "
            "did not start this one; leave it out to run on one device"
        )
    cfg.launcher = launcher
    if data_root is not None:
        _set_data_root(cfg, str(data_root))
    for key, value in options.items():
        try:
            cfg.merge_from_dict({key: value})
        except (AttributeError, KeyError, TypeError) as error:
            # The message ends with the whole part of the config.
            raise UserError(
                f"--cfg-options {key} does not fit {path}: {str(error)[:200]}"
            ) from error
    refuse_misspelt(cfg, options, asked)
    if work_dir is not None:
        cfg.work_dir = str(work_dir)
    elif cfg.get("work_dir") is None:
        cfg.work_dir = os.path.join("work_dirs", Path(path).stem)
    if published and Path(cfg.work_dir).resolve() == Path(path).resolve().parent:
        raise UserError(
            f"{cfg.work_dir} holds {cfg.filename} itself, over which the Runner would "
            "write its own; give another folder with --work-dir"
        )
    return cfg


def _run_config(path: str | Path) -> Config:
    """Read a config that is Python."""
    if not Path(path).is_file():
        raise UserError(
            f"no config at {str(path)!r}; give the path of a config file, such as "
            "configs/retinanet_ghostnet_fpn.py"
        )
    try:
        return Config.fromfile(path)
    except UserError as error:
        raise UserError(f"{path}: {error.text}") from error
    except Exception as error:  # a config is Python, and imports more
        raise UserError(
            f"{path} cannot be read as a config: {_cause(error)}"
        ) from error


def _cause(error: BaseException) -> str:
    """The error that others, MMEngine's advice among them, came from, and its place."""
    inner: Any = error
    while inner and inner.__traceback__:  # one that was only named has none
        error = inner
        hidden = error.__suppress_context__
        inner = error.__cause__ or (None if hidden else error.__context__)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = (
        "" if isinstance(error, SyntaxError) else f" ({place.filename}:{place.lineno})"
    )
    return f"{type(error).__name__}: {error}{where}"


def require(cfg: Config, *keys: str) -> None:
    """Check that a config has the dictionaries that a tool needs.

    Raises:
        UserError: If one is missing, None or something else.
    """
    missing = [key for key in keys if not cfg.get(key)]
    if missing:
        raise UserError(
            f"{cfg.filename} has no {', '.join(missing)}; copy it from "
            "configs/_base_, or inherit from a config there"
        )
    for key in keys:
        kinds = (dict, list) if key.endswith("evaluator") else dict
        if not isinstance(cfg[key], kinds):
            raise UserError(f"{key} is {cfg[key]!r}, expected dict(...)")


def require_detector(cfg: Config, what: str) -> None:
    """Raise a ``UserError`` for a classifier, where ``what`` needs a detector."""
    if is_classifier(cfg):
        raise UserError(
            f"{cfg.filename} has a classifier, and {what} needs a detector; see "
            "docs/classification.md for classifiers"
        )


@contextmanager
def config_mistakes(cfg: Config, reading: bool = False) -> Iterator[None]:
    """Turn an error that a mistake in the config causes into a ConfigError.

    These are errors of the registry, of arguments that a class does not take or that it
    asserts, not other errors inside its constructor; where we are ``reading`` the
    config, all.
    """
    try:
        yield
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        message = reason(error).partition("\n")[0]
        place = traceback.extract_tb(error.__traceback__)[-1]
        known = r"\w+ option .*num_workers|.*__init__\(\) got an unexpected keyword|"
        known += r"[\w ,]+ should be .*(\bdict|all None).*but ?got "
        component = component_of(error)
        asserted = isinstance(error, AssertionError)
        told = re.match(known, message) or (asserted and component)
        if asserted and not error.args:
            message = place.line  # the assertion itself
        if reading and not asserted:
            message = f"a value has the wrong type ({message}, at "
            message += f"`{place.line}`)"
        elif place.name != "build_from_cfg" and not told:
            raise
        elif component and "registry" not in message:
            message = f"{component}: {message}"
        raise ConfigError(
            f"{cfg.filename} cannot be run: {message}; correct it there or with "
            "--cfg-options"
        ) from error


@contextmanager
def evaluator_mistakes(key: str) -> Iterator[None]:
    """Turn an error of the evaluator at a key of the config into a ``UserError``."""
    try:
        with redirect_stdout(StringIO()):  # pycocotools prints
            yield
    except UserError:
        raise
    except Exception as error:  # metrics raise what they like
        remedy = f"correct {key}"
        if isinstance(error, (OSError, UnicodeDecodeError, json.JSONDecodeError)):
            remedy = f"give the annotations: --cfg-options {key}.ann_file=FILE"
        text = f"{key} fails with {type(error).__name__}: {reason(error)}"
        raise UserError(f"{text}; {remedy}") from error


def reason(error: BaseException) -> str:
    """Give an error's message, without the advice that registries add."""
    text = str(error.args[0]) if error.args else type(error).__name__
    text = str(error) if isinstance(error, OSError) else text
    if unknown := re.match(r"\S+ is not in the .+? registry", text):
        return unknown.group()
    keyed = isinstance(error, KeyError) and " " not in text
    return f"no key {text!r}" if keyed else text[:300]


def component_of(error: BaseException) -> str:
    """Name the component whose construction raised an error, if one did."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    builds = [f for f in frames if f.f_code.co_name == "build_from_cfg"]
    kinds = [frame.f_locals.get("obj_type") for frame in builds]
    return type_name(kinds[-1]) if kinds else ""


def _set_data_root(cfg: Config, data_root: str) -> None:
    """Move datasets, and the files that evaluators name, to another folder."""
    if not os.path.isdir(data_root):
        raise UserError(
            f"--data-root {data_root!r} is not a folder; for COCO it holds "
            f"{COCO_LAYOUT}, for ImageNet {IMAGENET_LAYOUT}"
        )
    used = [key for key in cfg if key.endswith(("_dataloader", "_evaluator"))]
    roots = {
        os.path.join(value, "")
        for place, value in walk({key: cfg[key] for key in used})
        if place.endswith(".data_root") and value
    }
    if not roots and cfg.get("data_root"):
        roots = {os.path.join(cfg.data_root, "")}
    top = min(roots, key=len, default="")  # of nested ones
    others = sorted(root for root in roots if not root.startswith(top))
    if others or not top:
        found = ", ".join([top, *others]) if top else "none"
        raise UserError(
            f"--data-root stands for the one data_root of a config, and {cfg.filename} "
            f"has {found}; set the paths of its datasets with --cfg-options"
        )
    data_root = os.path.join(data_root, "")

    def moved(node: Any) -> Any:
        if isinstance(node, dict):
            for key in node.keys() - {"metainfo"}:  # names of classes
                node[key] = moved(node[key])
        elif isinstance(node, (list, tuple)):
            return type(node)(moved(value) for value in node)
        elif isinstance(node, str) and os.path.join(node, "").startswith(top):
            return data_root + os.path.join(node, "")[len(top) :].rstrip("/")
        return node

    for key in ("data_root", *used):
        if key in cfg:
            cfg[key] = moved(cfg[key])
