"""Descriptions beside published weights: data, from which nothing runs.

MMEngine's registries import whatever a dotted ``type`` names and call it, and some
components of MMDetection evaluate an argument as Python, read files or download. So a
description holds the model, the pipeline of the test images and the classes, all of
plain values, and only components that are known to do none of that. The rest of the
config comes from our own base configs.
"""

from __future__ import annotations

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
from ghostdet.utils.components import is_classifier
from ghostdet.utils.files import sha256
from ghostdet.weights.source import fetch

#: Version of the format, under the key ``published``.
FORMAT_VERSION = 2
WEIGHTS, DESCRIPTION = ".safetensors", ".json"
#: Arguments that fill a model from elsewhere as it is built.
INITIAL = ("init_cfg", "pretrained")

_TUPLE = "__tuple__"  # JSON has lists alone, and some components take tuples alone
_V2 = "torchvision.transforms.v2."
_TRANSFORMS = {
    *("LoadImageFromFile", "LoadReadableImage", "LoadAnnotations"),
    *("Resize", "Pad", "PackDetInputs"),
    *(
        f"torchvision.transforms.v2.{n}"
        for n in ("Resize", "CenterCrop", "PILToTensor")
    ),
}
# Where the parts of a model are defined, except for modules that open, download or
# evaluate what an argument names.
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
_REFUSED = {
    "ghostdet.models.exported_detector",
    "mmdet.models.dense_heads.atss_vlfusion_head",  # downloads a language model
    "mmdet.models.detectors.d2_wrapper",  # runs detectron2
    "mmdet.models.detectors.glip",  # downloads a language model
    "mmdet.models.detectors.grounding_dino",  # likewise
    "mmdet.models.detectors.kd_one_stage",  # runs the config of a teacher
    "mmdet.models.detectors.lad",  # loads the weights of a teacher
}
# Functions and layers of mmcv.ops, which are in no registry.
_OPERATORS = {"nms", "soft_nms", "RoIAlign", "RoIPool"}
# Neither a path, an address, a name with a dot nor a call.
_WORD = re.compile(r"[A-Za-z0-9_-]*")


def load_published(path: Path) -> Config:
    """Read the description of published weights as a config.

    Args:
        path: The ``.json`` file, or the weights beside it.

    Returns:
        A config for testing and inference: the dataset and the metric are COCO's, or
        ImageNet's for a classifier. Its ``weights_sha256`` is what
        :func:`check_weights` compares weights with.

    Raises:
        UserError: If there is no such file, ``tools/weights.py publish`` did not write
            it, or it holds what a description may not.
    """
    path = path.with_suffix(DESCRIPTION)
    if not path.is_file():
        raise UserError(
            f"no config at {str(path)!r}, where published weights have theirs; give "
            "the .json file, or the config that they were trained with"
        )
    content = _read(path)
    check_description(content, str(path))
    names = ("default_runtime", "datasets/coco_detection")
    if is_classifier(content):
        names = ("runtime", "datasets/imagenet")
    bases = [Config.fromfile(f"{CONFIGS}/_base_/{name}.py") for name in names]
    parts = {k: v for base in bases for k, v in base.to_dict().items()}
    dataset = parts["test_dataloader"]["dataset"]
    dataset["pipeline"] = content["pipeline"]
    dataset_meta = dict(classes=tuple(content["classes"]))
    if not is_classifier(content):  # a folder has its own classes
        dataset["metainfo"] = dataset_meta
    elif len(content["classes"]) < 5:
        parts["test_evaluator"]["topk"] = (1,)
    keys = ("default_scope", "env_cfg", "visualizer", "test_dataloader")
    keys += ("test_evaluator", "default_hooks", "data_root")
    return Config(
        dict(
            {key: parts[key] for key in keys},
            model=content["model"],
            test_cfg=dict(type="TestLoop"),
            custom_hooks=[*parts["custom_hooks"], dict(type="PublishedWeightsHook")],
            dataset_meta=dataset_meta,
            weights_sha256=content["sha256"],
        ),
        filename=str(path),
    )


def is_description(path: Path) -> bool:
    """Tell whether a file describes published weights."""
    return path.is_file() and b'"published"' in path.read_bytes()[:100]


def meta_beside(checkpoint: str | Path) -> dict[str, Any]:
    """Read the classes of published weights from the description beside them.

    Args:
        checkpoint: The weights, published or not.

    Returns:
        ``classes``, or nothing if there is no description.

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
    """Check that weights and description were published together.

    Args:
        cfg: A config; if it was not published, any weights will do.
        checkpoint: The weights.

    Raises:
        UserError: If the checksum is another.
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


def check_description(content: dict[str, Any], source: str) -> None:
    """Check that model and pipeline are data that is known to run nothing.

    Args:
        content: A description, or ``model`` and ``pipeline`` of a config.
        source: The file, for the message.

    Raises:
        UserError: If they hold anything else; names the place.
    """
    model, pipeline = content.get("model"), content.get("pipeline")
    try:
        if not isinstance(model, dict) or not isinstance(pipeline, list):
            raise ValueError("model is no dictionary, or pipeline no list")
        _check_arguments(model, "model")
        for index, step in enumerate(pipeline):
            arguments = dict(step)
            kind = str(arguments.pop("type", None)).removeprefix("mmdet.")
            if kind not in _TRANSFORMS:
                known = ", ".join(sorted(_TRANSFORMS))
                raise ValueError(
                    f"pipeline.{index}.type is {_shown(kind)}, which is none of {known}"
                )
            _check_arguments(arguments, f"pipeline.{index}")
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{source}: {error}. Published weights are described by what is known to "
            "run nothing; docs/weights.md lists it"
        ) from None


def _check_arguments(node: Any, place: str) -> None:
    """Raise ``ValueError`` at anything but words, numbers and known components."""
    if isinstance(node, dict):
        for key, value in node.items():
            inner = f"{place}.{key}"
            if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z]\w*", key):
                raise ValueError(f"{inner} is no name of an argument")
            if key in INITIAL:
                raise ValueError(f"{inner} would load other weights")
            if key == "type":
                _check_type(value, inner)
            else:
                _check_arguments(value, inner)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            _check_arguments(value, f"{place}.{index}")
    elif isinstance(node, str):
        if not _WORD.fullmatch(node):
            raise ValueError(f"{place} is {_shown(node)}, expected a word or a number")
    elif node is not None and type(node) not in (bool, int, float):
        raise ValueError(f"{place} is {_shown(node)}, expected a word or a number")


def _check_type(name: Any, place: str) -> None:
    """Raise ``ValueError`` if a component is not known to be a part of a model."""
    if not isinstance(name, str):
        raise ValueError(f"{place} is {_shown(name)}, expected a name")
    if name in _OPERATORS:
        return
    scope, _, bare = name.rpartition(".")
    registries = (MODELS, MODELS.parent, TASK_UTILS, TASK_UTILS.parent)
    found = [r.module_dict[bare] for r in registries if bare in r.module_dict]
    if scope not in ("", "mmdet", "mmengine") or not found:
        raise ValueError(f"{place} is {_shown(name)}, which is in no registry")
    for component in found:
        module = component.__module__
        if module in _REFUSED or not module.startswith(_PACKAGES):
            raise ValueError(
                f"{place} is {_shown(name)}, and {module} is not known to be safe"
            )


def _shown(value: Any) -> str:
    return f"a {type(value).__name__}" if len(repr(value)) > 100 else repr(value)


def _read(path: Path) -> dict[str, Any]:
    """Parse the file and check what is around model and pipeline."""
    refusal = f"{path} was not written by tools/weights.py publish"
    try:
        content = json.loads(path.read_bytes(), object_hook=_decoded)
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{refusal}: it is no such JSON ({error})") from error
    if not isinstance(content, dict) or "published" not in content:
        raise UserError(f"{refusal}; publish the weights with it, or give a .py config")
    if content["published"] != FORMAT_VERSION:
        raise UserError(
            f"{path} has the format {_shown(content['published'])}, and this version "
            f"of ghostdet reads {FORMAT_VERSION}; update ghostdet, or publish it again"
        )
    classes, checksum = content.get("classes"), content.get("sha256")
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise UserError(f"{refusal}: classes is no list of names")
    if not re.fullmatch("[0-9a-f]{64}", str(checksum)):
        raise UserError(f"{refusal}: sha256 is no checksum")
    return content


def encoded(node: Any) -> Any:
    """Give a config as JSON has it, with tuples marked."""
    if isinstance(node, dict):
        return {key: encoded(value) for key, value in node.items()}
    if isinstance(node, tuple):
        return {_TUPLE: [encoded(value) for value in node]}
    return [encoded(value) for value in node] if isinstance(node, list) else node


def _decoded(node: dict[str, Any]) -> Any:
    return tuple(node[_TUPLE]) if node.keys() == {_TUPLE} else node
