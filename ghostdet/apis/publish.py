"""Publishing a trained model: its weights, and beside them what they are of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmdet
import safetensors.torch
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

from ghostdet import __version__
from ghostdet.apis.infer import load_detector
from ghostdet.apis.model import build_model, load_model
from ghostdet.config import load_config, require
from ghostdet.errors import UserError
from ghostdet.models import ImageClassifier
from ghostdet.utils.files import atomic_outputs, sha256
from ghostdet.weights import check_state_dict, get_state_dict
from ghostdet.weights.checkpoint import read_checkpoint
from ghostdet.weights.published import (
    DESCRIPTION,
    FORMAT_VERSION,
    INITIAL,
    WEIGHTS,
    check_config,
    encoded,
    is_description,
)

# What a config says by them, a published one says by leaving them out.
_DEFAULTS = {
    "backend_args": None,
    "file_client_args": None,
    "format_only": False,
    "outfile_prefix": None,
}


def publish(
    checkpoint: str,
    out: str,
    config: str,
    cfg_options: dict[str, Any] | None = None,
) -> Path:
    """Write the weights of a checkpoint, and a description beside them.

    The description, ``.json``, holds ``classes``, the parts of the config that testing
    and inference need, the checksum of the weights, versions, epoch, iteration and
    seed, and ``last_validation``: the metrics of the last validation before the
    checkpoint was written. That of ``best_*.pth`` is of these weights; MMEngine writes
    ``epoch_N.pth`` before it validates it.

    Both files are loaded as a model before they get their names, the description
    last.

    Args:
        checkpoint: A checkpoint of a training run. Where it holds an exponential moving
            average, that is what is published.
        out: A ``.safetensors`` file.
        config: The config it was trained with.
        cfg_options: Dotted keys and values to merge into it.

    Returns:
        The path of the weights.

    Raises:
        UserError: If a file cannot be read or written, the weights do not fit the
            config or are not finite, or the config needs what a published one may not
            hold.
    """
    weights, description = _out(out)
    cfg = load_config(config, cfg_options=cfg_options)
    require(cfg, "model", "test_dataloader", "test_evaluator")
    published = published_config(cfg)
    loaded = read_checkpoint(checkpoint)
    state_dict = get_state_dict(loaded)
    model = build_model(cfg)
    # First: what fits is of the model's size, and can be looked at.
    check_state_dict(model, state_dict, checkpoint)
    _check_numbers(state_dict, checkpoint)
    # MMEngine's EMAHook has put the average under this name, and what was trained under
    # `ema_state_dict`.
    taken = "EMA" if "ema_state_dict" in loaded else "as trained"
    meta = loaded.get("meta", {})
    content = {
        "published": FORMAT_VERSION,
        "ghostdet": __version__,
        "mmdet": mmdet.__version__,
        "torch": str(torch.__version__),
        "weights": taken,
        "classes": _classes(meta, cfg, model, checkpoint),
        **{key: meta.get(key) for key in ("epoch", "iter", "seed")},
        "last_validation": _metrics(loaded),
        "config": encoded(published),
    }
    backbone = getattr(model, "backbone", None)
    se_gate = getattr(backbone, "se_gate", "unknown")
    with atomic_outputs(description) as folder:
        path = folder / weights.name
        safetensors.torch.save_file(
            {
                name: value.detach().clone(memory_format=torch.contiguous_format)
                for name, value in state_dict.items()
            },
            path,
            # Names and shapes do not tell it, and backbones can be filled from here.
            # With two entries, whose order is chance, checksums would be two as well.
            {"se_gate": se_gate},
        )
        content["sha256"] = sha256(path)
        (folder / description.name).write_text(_dumped(content, config), "utf-8")
        load = load_model if isinstance(model, ImageClassifier) else load_detector
        load(folder / description.name, path)
    print(
        f"{weights}: {len(state_dict)} tensors, {taken}\n"
        f"{description}: {len(content['classes'])} classes, sha256 {content['sha256']}"
    )
    return weights


def published_config(cfg: Config) -> dict[str, Any]:
    """The parts of a config that testing and inference need.

    Args:
        cfg: A config.

    Returns:
        ``model``, ``test_dataloader`` and ``test_evaluator``, of plain values; and
        ``data_root`` where the data set has none of its own.

    Raises:
        UserError: If they hold what a published config may not; names the place.
    """
    plain = cfg.to_dict()
    model, loader = plain["model"], plain["test_dataloader"]
    if plain.get("data_preprocessor") is not None:
        model.setdefault("data_preprocessor", plain["data_preprocessor"])
    dataset = {
        key: value
        for key, value in loader["dataset"].items()
        if key not in ("metainfo", "download")
    }
    published = dict(
        model=_without(model, dict.fromkeys(INITIAL, ...)),
        test_dataloader=_without(
            dict(
                batch_size=loader.get("batch_size", 1),
                num_workers=loader.get("num_workers", 0),
                dataset=dataset,
            ),
            _DEFAULTS,
        ),
        test_evaluator=_without(plain["test_evaluator"], _DEFAULTS),
    )
    if "root" in dataset and plain.get("data_root"):  # what --data-root replaces in it
        published["data_root"] = plain["data_root"]
    check_config(published, str(cfg.filename))
    return published


def _without(node: Any, dropped: Mapping[str, Any]) -> Any:
    """Less these keys, where they have this value; ``...`` is any."""
    if isinstance(node, dict):
        return {
            key: _without(value, dropped)
            for key, value in node.items()
            if key not in dropped or dropped[key] not in (..., value)
        }
    if isinstance(node, (list, tuple)):
        return type(node)(_without(value, dropped) for value in node)
    return node


def _out(out: str) -> tuple[Path, Path]:
    weights = Path(out)
    if weights.suffix != WEIGHTS:
        raise UserError(f"{out!r} does not end in {WEIGHTS}, which is what is written")
    description = weights.with_suffix(DESCRIPTION)
    published = is_description(description)
    for path in (description, weights):
        if path.is_dir() or (path.exists() and not published):
            raise UserError(
                f"{path} is there and was not published; give another name, or "
                "remove it"
            )
    return weights, description


def _check_numbers(state_dict: Mapping[str, Tensor], source: str) -> None:
    for name, value in state_dict.items():
        if not torch.isfinite(value).all():
            raise UserError(f"{source} cannot be published: {name} is NaN or infinity")


def _classes(
    meta: Mapping[str, Any], cfg: Config, model: nn.Module, checkpoint: str
) -> list[str]:
    """Names of the classes: those of the training run, or else a detector's config."""
    classes = (meta.get("dataset_meta") or {}).get("classes")
    if classes is None and isinstance(model, ImageClassifier):
        raise UserError(
            f"{checkpoint} names no classes; publish a checkpoint of a training run"
        )
    if classes is None:
        dataset = DATASETS.build(
            {**cfg.test_dataloader.dataset, "lazy_init": True, "pipeline": []}
        )
        classes = dataset.metainfo.get("classes")
    if not classes or not all(isinstance(name, str) for name in classes):
        raise UserError(
            f"neither the checkpoint nor {cfg.filename} names the classes; set "
            "metainfo=dict(classes=(...)) of test_dataloader.dataset"
        )
    return list(classes)


def _metrics(loaded: Mapping[str, Any]) -> dict[str, float] | None:
    hub = loaded.get("message_hub") or {}
    return {
        name.removeprefix("val/"): float(values.current())
        for name, values in hub.get("log_scalars", {}).items()
        if name.startswith("val/")
        and "/" in name.removeprefix("val/")
        and isinstance(values, HistoryBuffer)
        and math.isfinite(values.current())
    } or None


def _dumped(content: dict[str, Any], config: str) -> str:
    try:
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise UserError(
            f"{config} holds NaN or infinity, which JSON has not; set a number with "
            "--cfg-options"
        ) from error
