"""Descriptions beside published weights: data, from which nothing runs.

MMEngine's registries import whatever a dotted ``type`` names and call it, and some
components of MMDetection evaluate an argument as Python, read files or download. So a
description holds the model, the pipeline of the test images and the classes, all of
plain values, and only components that are known to do none of that. The rest of the
config comes from our own base configs.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ghostdet._configs import CONFIGS
from ghostdet.errors import UserError
from ghostdet.utils.components import LOADING, is_classifier
from ghostdet.utils.files import sha256
from ghostdet.weights.source import fetch

#: Version of the format, under the key ``published``.
FORMAT_VERSION = 2
WEIGHTS, DESCRIPTION = ".safetensors", ".json"
#: Arguments that load weights while a model is built.
INITIAL = ("init_cfg", "pretrained")

_TUPLE = "__tuple__"  # JSON has lists alone, and some components take tuples alone
_TRANSFORMS = {
    *(*LOADING, "Resize", "Pad"),
    *(
        "torchvision.transforms.v2." + name
        for name in ("Resize", "CenterCrop", "PILToTensor")
    ),
}
_PARTS = """
    backbones data_preprocessors dense_heads detectors layers losses necks roi_heads
    seg_heads task_modules.assigners task_modules.coders task_modules.prior_generators
    task_modules.samplers
"""
# Packages of the parts of a model, except for modules that open, download or
# evaluate what an argument names.
_PACKAGES = (
    *("torch.nn.modules.", "mmcv.cnn.bricks.", "mmcv.ops.", "ghostdet.models."),
    "mmengine.model.base_model.data_preprocessor",
    *(f"mmdet.models.{part}." for part in _PARTS.split()),
)
_REFUSED = {
    "ghostdet.models.exported_detector",
    "mmdet.models.dense_heads.atss_vlfusion_head",  # downloads a language model
    "mmdet.models.detectors.d2_wrapper",  # runs detectron2
    "mmdet.models.detectors.glip",  # downloads a language model
    "mmdet.models.detectors.grounding_dino",  # downloads a language model
    "mmdet.models.detectors.kd_one_stage",  # runs the config of a teacher
    "mmdet.models.detectors.lad",  # loads the weights of a teacher
}
# Functions and layers of mmcv.ops, which are in no registry.
_OPERATORS = {"nms", "soft_nms", "RoIAlign", "RoIPool"}
# Base configs, and the keys that are taken from them.
_DETECTOR_BASES = ("default_runtime", "datasets/coco_detection")
_CLASSIFIER_BASES = ("runtime", "datasets/imagenet")
_FROM_BASES = {
    *("default_scope", "env_cfg", "default_hooks", "visualizer", "data_root"),
    *("test_dataloader", "test_evaluator"),
}
_HOOKS = ("CheckpointGuardHook", "PublishedWeightsHook")
# Neither a path, an address, a name with a dot nor a call.
_WORD = re.compile(r"[A-Za-z0-9_-]*")


def load_published(path: Path) -> Config:
    """Read the description of published weights as a config.

    Args:
        path: The ``.json`` file, or the weights beside it.

    Returns:
        A config for testing and inference. Dataset and metric are COCO's, or
        ImageNet's for a classifier. :func:`check_weights` compares weights with its
        ``weights_sha256``.

    Raises:
        UserError: If the file is missing, ``tools/weights.py publish`` did not write
            it, or it holds what a description may not.
    """
    path = path.with_suffix(DESCRIPTION)
    if not path.is_file():
        raise UserError(
            f"no config at {str(path)!r}, where published weights have theirs; give "
            "the .json file, or the config that they were trained with"
        )
    content = _read(path)
    classifies = is_classifier(content)
    parts = {}
    for name in _CLASSIFIER_BASES if classifies else _DETECTOR_BASES:
        base = Config.fromfile(f"{CONFIGS}/_base_/{name}.py").to_dict()
        parts |= {key: base[key] for key in _FROM_BASES & base.keys()}
    dataset = parts["test_dataloader"]["dataset"]
    dataset["pipeline"] = content["pipeline"]
    dataset_meta = dict(classes=tuple(content["classes"]))
    if not classifies:  # a folder has its own classes
        dataset["metainfo"] = dataset_meta
    elif len(content["classes"]) < 5:
        parts["test_evaluator"]["topk"] = (1,)
    return Config(
        dict(
            **parts,
            model=content["model"],
            test_cfg=dict(type="TestLoop"),
            custom_hooks=[dict(type=hook) for hook in _HOOKS],
            dataset_meta=dataset_meta,
            weights_sha256=content["sha256"],
        ),
        filename=str(path),
    )


def _read(path: Path) -> dict[str, Any]:
    """Parse the file and check all of it."""
    try:
        content = json.loads(path.read_bytes(), object_hook=_decoded)
        if content["published"] != FORMAT_VERSION:
            raise ValueError(
                f"format {_short(content['published'])}, expected {FORMAT_VERSION}"
            )
        classes = content["classes"]
        if type(classes) is not list or {type(name) for name in classes} - {str}:
            raise ValueError("classes is not a list of names")
        check_description(content)
        if checksum(encoded(content)) != content["description_sha256"]:
            raise ValueError("it was damaged or edited (description_sha256 differs)")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not a description of published weights: {error}. Publish the "
            "weights again with tools/weights.py publish, or give a .py config; "
            "docs/weights.md lists what a description may hold"
        ) from error
    return content


def checksum(content: dict[str, Any]) -> str:
    """Compute the SHA-256 of a description's content, without its own checksum."""
    described = {k: v for k, v in content.items() if k != "description_sha256"}
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_description(path: Path) -> bool:
    """Tell whether a file describes published weights."""
    return path.is_file() and b'"published"' in path.read_bytes()[:100]


def meta_beside(checkpoint: str | Path) -> dict[str, Any]:
    """Read the classes of published weights from the description beside them.

    Returns:
        ``classes``, or nothing if the weights were not published.

    Raises:
        UserError: If the description belongs to other weights or cannot be read.
    """
    description = Path(checkpoint).with_suffix(DESCRIPTION)
    if Path(checkpoint).suffix != WEIGHTS or not is_description(description):
        return {}
    cfg = load_published(description)
    check_weights(cfg, checkpoint)
    return cfg.dataset_meta


def check_weights(cfg: Config, checkpoint: str | Path) -> None:
    """Check that weights and config were published together.

    Raises:
        UserError: If the config was published with other weights.
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
    """Refuses weights that do not belong to a published config."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare checksums, see :func:`check_weights`."""
        check_weights(runner.cfg, runner.cfg.load_from)


def check_description(content: dict[str, Any]) -> None:
    """Check that ``model`` and ``pipeline`` are data that is known to run nothing.

    Raises:
        ValueError: If they hold anything else; names the place.
    """
    model, pipeline = content["model"], content["pipeline"]
    if not isinstance(model, dict) or "type" not in model:
        raise ValueError("model is not a dictionary with a type")
    if type(pipeline) is not list or not all(isinstance(s, dict) for s in pipeline):
        raise ValueError("pipeline is not a list of dictionaries")
    _check_arguments(model, "model")
    for index, step in enumerate(pipeline):
        arguments = dict(step)
        kind = str(arguments.pop("type", None)).removeprefix("mmdet.")
        if kind not in _TRANSFORMS:
            known = ", ".join(sorted(_TRANSFORMS))
            raise ValueError(f"pipeline.{index}.type is {_short(kind)}, not in {known}")
        _check_arguments(arguments, f"pipeline.{index}")


def _check_arguments(node: Any, place: str) -> None:
    """Raise ``ValueError`` at anything but words, numbers and known components."""
    if isinstance(node, dict):
        for key, value in node.items():
            inner = f"{place}.{key}"
            if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z]\w*", key):
                raise ValueError(f"{inner} is not the name of an argument")
            if key in INITIAL:
                raise ValueError(f"{inner} would load other weights")
            check = _check_type if key == "type" else _check_arguments
            check(value, inner)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            _check_arguments(value, f"{place}.{index}")
    elif not (
        (isinstance(node, str) and _WORD.fullmatch(node))
        or node is None
        or type(node) in (bool, int, float)
    ):
        raise ValueError(f"{place} is {_short(node)}, expected a word or a number")


def _check_type(name: Any, place: str) -> None:
    """Raise ``ValueError`` if a component is not known to be a part of a model."""
    if not isinstance(name, str):
        raise ValueError(f"{place} is {_short(name)}, expected a name")
    if name in _OPERATORS:
        return
    scope, _, bare = name.rpartition(".")
    registries = (MODELS, MODELS.parent, TASK_UTILS, TASK_UTILS.parent)
    found = [r.module_dict[bare] for r in registries if bare in r.module_dict]
    if scope not in ("", "mmdet", "mmengine") or not found:
        raise ValueError(f"{place} is {_short(name)}, which is in no registry")
    for component in found:
        module = component.__module__
        if module in _REFUSED or not module.startswith(_PACKAGES):
            raise ValueError(f"{place} is {name}, and {module} is not known to be safe")


def _short(value: Any) -> str:
    return repr(value)[:100]


def encoded(node: Any) -> Any:
    """Make a config's values fit for JSON, with tuples marked."""
    if isinstance(node, dict):
        return {key: encoded(value) for key, value in node.items()}
    if isinstance(node, tuple):
        return {_TUPLE: [encoded(value) for value in node]}
    return [encoded(value) for value in node] if isinstance(node, list) else node


def _decoded(node: dict[str, Any]) -> Any:
    return tuple(node[_TUPLE]) if node.keys() == {_TUPLE} else node
