"""Configs that lie beside published weights: data, of which nothing runs.

MMEngine's registries import whatever a dotted ``type`` names and call it, and some
components of MMDetection evaluate an argument as Python, read files or download. So a
published config holds little, and of that little this module knows every kind: the rest
of a config, its samplers, loops and hooks, is always the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ghostdet.errors import UserError
from ghostdet.utils.files import sha256
from ghostdet.weights.source import fetch

#: Of what is written, under the key ``published``.
FORMAT_VERSION = 1
WEIGHTS, DESCRIPTION = ".safetensors", ".json"
_TUPLE = "__tuple__"  # JSON has lists alone, and some transforms take tuples alone
_MAX_BYTES = 16 * 2**20


class _Task(NamedTuple):
    """What a published config may hold besides the model, for one kind of models.

    Components by their names, and which arguments each may have, of plain values. And
    the rest, which is not in the file.
    """

    datasets: dict[str, set[str]]  # which have a pipeline, and paths
    paths: set[str]
    transforms: dict[str, set[str]]
    metrics: dict[str, set[str]]
    runtime: dict[str, Any]
    collate_fn: str
    told_classes: bool  # whether the data set gets the classes, or knows its own


_V2 = "torchvision.transforms.v2."
_TASKS = (
    _Task(
        {"CocoDataset": {"test_mode", "indices"}},
        {"data_root", "ann_file", "data_prefix"},
        {
            **dict.fromkeys(
                ("LoadImageFromFile", "LoadReadableImage"),
                {"to_float32", "color_type", "imdecode_backend", "max_unreadable"},
            ),
            "LoadAnnotations": {"with_bbox", "with_label", "with_mask", "poly2mask"},
            "Resize": {
                *("scale", "scale_factor", "keep_ratio", "clip_object_border"),
                *("backend", "interpolation"),
            },
            "Pad": {"size", "size_divisor", "pad_to_square", "pad_val", "padding_mode"},
            "PackDetInputs": {"meta_keys"},
        },
        dict.fromkeys(
            ("CocoMetric", "FastCocoMetric"),
            {
                *("metric", "classwise", "proposal_nums", "iou_thrs", "metric_items"),
                "prefix",
            },
        ),
        dict(
            default_hooks=dict(visualization=dict(type="DetVisualizationHook")),
            visualizer=dict(
                type="DetLocalVisualizer",
                name="visualizer",
                vis_backends=[dict(type="LocalVisBackend")],
            ),
        ),
        "pseudo_collate",
        told_classes=True,
    ),
    # Of classifiers. torchvision's CIFAR10 reads pickles, of the MD5 that it knows.
    _Task(
        {"ImageFolder": set(), "CIFAR10": {"train"}, "Digits": {"train"}},
        {"root"},
        {
            _V2 + "Resize": {"size", "interpolation", "max_size", "antialias"},
            _V2 + "CenterCrop": {"size"},
            _V2 + "PILToTensor": set(),
        },
        {"Accuracy": {"topk", "prefix"}},
        {},
        "default_collate",
        told_classes=False,
    ),
)
_LOADER = {"batch_size": 1024, "num_workers": 64}  # at most
_RUNTIME: dict[str, Any] = dict(
    default_scope="mmdet",
    test_cfg=dict(type="TestLoop"),
    custom_hooks=[dict(type="CheckpointGuardHook"), dict(type="PublishedWeightsHook")],
)

# Where the parts of a model are from, less those that open or download what an argument
# names, or evaluate it.
_PACKAGES = (
    *("torch.nn.modules.", "mmcv.cnn.bricks.", "mmcv.ops.", "ghostdet.models."),
    "mmengine.model.base_model.data_preprocessor",
    *(
        f"mmdet.models.{part}."
        for part in (
            *("backbones", "data_preprocessors", "dense_heads", "detectors", "layers"),
            *("losses", "necks", "roi_heads", "seg_heads", "task_modules.assigners"),
            *("task_modules.coders", "task_modules.prior_generators"),
            "task_modules.samplers",
        )
    ),
)
_REACHING_OUT = {
    "mmdet.models.dense_heads.atss_vlfusion_head": "downloads a language model",
    "mmdet.models.detectors.d2_wrapper": "hands its arguments to detectron2",
    "mmdet.models.detectors.glip": "downloads a language model",
    "mmdet.models.detectors.grounding_dino": "downloads a language model",
    "mmdet.models.detectors.kd_one_stage": "runs the config of a teacher",
    "mmdet.models.detectors.lad": "loads the weights of a teacher",
}
# Types that are no names of a registry: functions and layers of mmcv.ops.
_OPERATORS = {"nms", "soft_nms", "RoIAlign", "RoIPool"}
_SCOPES = {"", "mmdet", "mmengine"}
# Neither a path, an address, a name with a dot nor a call.
_WORD = re.compile(r"[A-Za-z0-9_-]*")
#: What fills a model from elsewhere as it is built; published weights are whole.
INITIAL = ("init_cfg", "pretrained")


def load_published(path: Path) -> Config:
    """Read the description of published weights as a config.

    Args:
        path: The ``.json`` file, or the weights beside it.

    Returns:
        A config for testing and inference, with ``weights_sha256``, which
        :func:`check_weights` holds weights to.

    Raises:
        UserError: If there is no such file, it is not one that ``tools/weights.py
            publish`` writes, or it holds what a published config may not.
    """
    path = path.with_suffix(DESCRIPTION)
    if not path.is_file():
        raise UserError(
            f"no config at {str(path)!r}, where published weights have theirs; give "
            "the .json file, or the config that they were trained with"
        )
    content = _read(path)
    config, classes = content["config"], content["classes"]
    check_config(config, str(path))
    loader = config["test_dataloader"]
    task = _task_of(loader["dataset"])
    workers = loader.setdefault("num_workers", 0)
    loader.update(
        sampler=dict(type="DefaultSampler", shuffle=False),
        persistent_workers=workers > 0,
        drop_last=False,
        collate_fn=dict(type=task.collate_fn),
    )
    dataset_meta = dict(classes=tuple(classes))
    if task.told_classes:
        loader["dataset"]["metainfo"] = dataset_meta
    return Config(
        dict(
            **config,
            **_RUNTIME,
            **task.runtime,
            dataset_meta=dataset_meta,
            weights_sha256=content["sha256"],
        ),
        filename=str(path),
    )


def is_description(path: Path) -> bool:
    """Whether a file describes published weights."""
    return path.is_file() and b'"published"' in path.read_bytes()[:100]


def meta_beside(checkpoint: str | Path) -> dict[str, Any]:
    """What published weights were trained on, by the description beside them.

    Args:
        checkpoint: Where weights are, published or not.

    Returns:
        ``classes``, or nothing where there is no description.

    Raises:
        UserError: If the description is of other weights, or not to be read.
    """
    description = Path(checkpoint).with_suffix(DESCRIPTION)
    if Path(checkpoint).suffix != WEIGHTS or not is_description(description):
        return {}
    cfg = load_published(description)
    check_weights(cfg, checkpoint)
    return cfg.dataset_meta


def check_weights(cfg: Config, checkpoint: str | Path) -> None:
    """See that weights are those that a published config was written with.

    Args:
        cfg: A config; one that was not published goes with any weights.
        checkpoint: Where the weights are.

    Raises:
        UserError: If they are others.
    """
    expected = cfg.get("weights_sha256")
    if expected is None:
        return
    actual = sha256(fetch(checkpoint))
    if actual != expected:
        raise UserError(
            f"{checkpoint} are not the weights that {cfg.filename} describes.\n"
            f"  expected sha256 {expected}\n"
            f"  got      sha256 {actual}\n"
            "Copy both files again, or publish them again"
        )


@HOOKS.register_module()
class PublishedWeightsHook(Hook):
    """Refuses weights that are not those of a published config."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare checksums, see :func:`check_weights`."""
        check_weights(runner.cfg, runner.cfg.load_from)


def check_config(config: Any, source: str) -> None:
    """See that nothing in a config is anything but data.

    Args:
        config: ``model``, ``test_dataloader`` and ``test_evaluator``, of dictionaries,
            lists, tuples, text, numbers, bools and None.
        source: Where it is from, for the message.

    Raises:
        UserError: If it holds anything else; names the place.
    """
    try:
        _check_parts(config)
    except _NotAllowed as error:
        raise UserError(
            f"{source}: {error}. Published configs hold what is known to run nothing; "
            "docs/weights.md says what that is"
        ) from None


class _NotAllowed(Exception):
    """A place in a config, and what is wrong with it."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place} {problem}")


def _check_parts(config: Any) -> None:
    parts = {"model", "test_dataloader", "test_evaluator"}
    _check_keys(config, "config", {*parts, "data_root"})
    if not parts <= config.keys():
        missing = ", ".join(sorted(parts - config.keys()))
        raise _NotAllowed("config", f"has no {missing}")
    if not isinstance(config["model"], dict):
        raise _NotAllowed(
            "model", f"is {_shown(config['model'])}, expected a dictionary"
        )
    _check_arguments(config["model"], "model")
    _check_path(config.get("data_root", ""), "data_root")

    loader = config["test_dataloader"]
    _check_keys(loader, "test_dataloader", {"dataset", *_LOADER})
    dataset, place = loader.get("dataset"), "test_dataloader.dataset"
    task = _task_of(dataset)
    _check_component(dataset, place, task.datasets, {"pipeline", *task.paths})
    for key in task.paths & dataset.keys():
        if key == "data_prefix":
            _check_keys(dataset[key], f"{place}.{key}", {"img"})
            _check_path(dataset[key].get("img", ""), f"{place}.{key}.img")
        else:
            _check_path(dataset[key], f"{place}.{key}")
    for key, limit in _LOADER.items():
        value = loader.get(key, 1)
        if type(value) is not int or not 0 <= value <= limit:
            raise _NotAllowed(
                f"test_dataloader.{key}", f"is {_shown(value)}, expected up to {limit}"
            )
    pipeline = dataset.get("pipeline")
    if not isinstance(pipeline, list):
        raise _NotAllowed(
            f"{place}.pipeline", f"is {_shown(pipeline)}, expected a list"
        )
    for index, step in enumerate(pipeline):
        _check_component(step, f"{place}.pipeline.{index}", task.transforms)

    evaluators = config["test_evaluator"]
    evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
    files = {"ann_file"} & task.paths
    for evaluator in evaluators:
        _check_component(evaluator, "test_evaluator", task.metrics, files)
        _check_path(evaluator.get("ann_file", ""), "test_evaluator.ann_file")


def _task_of(dataset: Any) -> _Task:
    kinds = {kind: task for task in _TASKS for kind in task.datasets}
    return kinds[_kind_of(dataset, "test_dataloader.dataset", kinds)]


def _check_keys(node: Any, place: str, allowed: set[str]) -> None:
    if not isinstance(node, dict):
        raise _NotAllowed(place, f"is {_shown(node)}, expected a dictionary")
    for key in node:
        if key not in allowed:
            raise _NotAllowed(
                f"{place}.{key}", f"is none of {', '.join(sorted(allowed))}"
            )


def _check_component(
    node: Any, place: str, kinds: dict[str, set[str]], others: set[str] = frozenset()
) -> None:
    """A component that is one of a few, with arguments that are plain values.

    ``others`` are arguments that are looked at elsewhere.
    """
    arguments = kinds[_kind_of(node, place, kinds)]
    _check_keys(node, place, {"type", *arguments, *others})
    for key in arguments & node.keys():
        _check_arguments(node[key], f"{place}.{key}")


def _kind_of(node: Any, place: str, kinds: Collection[str]) -> str:
    """The type of a component that is one of a few."""
    if not isinstance(node, dict):
        raise _NotAllowed(place, f"is {_shown(node)}, expected a dictionary")
    kind = node.get("type")
    if not isinstance(kind, str) or kind.removeprefix("mmdet.") not in kinds:
        raise _NotAllowed(
            f"{place}.type", f"is {_shown(kind)}, expected {' or '.join(kinds)}"
        )
    return kind.removeprefix("mmdet.")


def _check_path(value: Any, place: str) -> None:
    if not isinstance(value, str) or "://" in value:
        raise _NotAllowed(
            place, f"is {_shown(value)}, expected the path of a file or folder"
        )


def _check_arguments(node: Any, place: str) -> None:
    """Arguments of components, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            inner = f"{place}.{key}"
            if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z]\w*", key):
                raise _NotAllowed(inner, "is no name of an argument")
            elif key in INITIAL:
                raise _NotAllowed(inner, "would load other weights")
            elif key == "type":
                _check_type(value, inner)
            else:
                _check_arguments(value, inner)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            _check_arguments(value, f"{place}.{index}")
    elif isinstance(node, str):
        if not _WORD.fullmatch(node):
            raise _NotAllowed(place, f"is {_shown(node)}, expected a word or a number")
    elif node is not None and type(node) not in (bool, int, float):
        raise _NotAllowed(place, f"is {_shown(node)}, expected a word or a number")


def _check_type(name: Any, place: str) -> None:
    if not isinstance(name, str):
        raise _NotAllowed(place, f"is {_shown(name)}, expected the name of a component")
    if name in _OPERATORS:
        return
    scope, _, bare = name.rpartition(".")
    registries = (MODELS, MODELS.parent, TASK_UTILS, TASK_UTILS.parent)
    found = [r.module_dict[bare] for r in registries if bare in r.module_dict]
    if scope not in _SCOPES or not found:
        raise _NotAllowed(place, f"is {_shown(name)}, which is in no registry")
    for component in found:
        module = component.__module__
        if module in _REACHING_OUT:
            raise _NotAllowed(
                place, f"is {_shown(name)}, which {_REACHING_OUT[module]}"
            )
        if not module.startswith(_PACKAGES):
            raise _NotAllowed(
                place, f"is {_shown(name)}, of {module}, and not a part of a detector"
            )


def _shown(value: Any) -> str:
    return f"a {type(value).__name__}" if len(repr(value)) > 100 else repr(value)


def _read(path: Path) -> dict[str, Any]:
    """Parse the file and check what is around the config."""
    refusal = f"{path} is no config that tools/weights.py publish wrote"
    if path.stat().st_size > _MAX_BYTES:
        raise UserError(f"{refusal}: it has more than {_MAX_BYTES} bytes")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{refusal}: it is not JSON ({error})") from error
    if not isinstance(content, dict) or "published" not in content:
        raise UserError(f"{refusal}; publish the weights with it, or give a .py config")
    if content["published"] != FORMAT_VERSION:
        raise UserError(
            f"{path} is of format {_shown(content['published'])}, and this version of "
            f"ghostdet reads {FORMAT_VERSION}; update ghostdet, or publish it again"
        )
    classes, checksum = content.get("classes"), content.get("sha256")
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise UserError(f"{refusal}: classes is no list of names")
    if not isinstance(checksum, str) or not re.fullmatch("[0-9a-f]{64}", checksum):
        raise UserError(f"{refusal}: sha256 is no checksum")
    if "config" not in content:
        raise UserError(f"{refusal}: it has no config")
    try:
        content["config"] = _decoded(content["config"])
    except RecursionError as error:
        raise UserError(f"{refusal}: it is nested too deeply") from error
    return content


def encoded(node: Any) -> Any:
    """A config as JSON, with tuples marked."""
    if isinstance(node, dict):
        return {key: encoded(value) for key, value in node.items()}
    if isinstance(node, tuple):
        return {_TUPLE: [encoded(value) for value in node]}
    return [encoded(value) for value in node] if isinstance(node, list) else node


def _decoded(node: Any, depth: int = 64) -> Any:
    if depth == 0:
        raise RecursionError
    depth -= 1
    if isinstance(node, dict):
        if node.keys() == {_TUPLE} and isinstance(node[_TUPLE], list):
            return tuple(_decoded(value, depth) for value in node[_TUPLE])
        return {key: _decoded(value, depth) for key, value in node.items()}
    return [_decoded(v, depth) for v in node] if isinstance(node, list) else node
