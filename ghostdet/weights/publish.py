"""Publish a trained model: its weights, and a description beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from ghostdet._version import __version__
from ghostdet.errors import UserError
from ghostdet.utils.files import RECORD, atomic_outputs, sha256
from ghostdet.weights.checkpoint import read_checkpoint
from ghostdet.weights.published import (
    DESCRIPTION,
    FORMAT_VERSION,
    INITIAL,
    WEIGHTS,
    check_description,
    checksum,
    encoded,
    is_description,
    load_published,
)
from ghostdet.weights.state_dict import check_state_dict, get_state_dict


def publish(checkpoint: str, out: str, cfg: Config) -> Path:
    """Write the weights of a checkpoint, and a description beside them.

    The description, a ``.json`` file, holds the model, the pipeline of the test images,
    the classes, the checksum of the weights, and the metrics of their evaluation if the
    run's ``run.json`` is beside the checkpoint. Both files are loaded as a model before
    they get their names, the description last.

    Args:
        checkpoint: A checkpoint of a training run. If it holds an exponential moving
            average, the average is published.
        out: A ``.safetensors`` file.
        cfg: The config it was trained with.

    Returns:
        The path of the weights.

    Raises:
        UserError: If a file cannot be read or written, the weights do not fit the
            config or are not finite, or a description may not hold the config.
    """
    weights = Path(out)
    if weights.suffix != WEIGHTS:
        raise UserError(f"{out!r} does not end in {WEIGHTS}; give such a name")
    description = weights.with_suffix(DESCRIPTION)
    for path in (description, weights):
        if path.exists() and not is_description(description):
            raise UserError(
                f"{path} exists and was not published; give another name, or remove it"
            )
    model = _build(cfg)
    parts = published_parts(cfg)
    loaded = read_checkpoint(checkpoint)
    state_dict = get_state_dict(loaded)
    check_state_dict(model, state_dict, checkpoint)
    for name, value in state_dict.items():
        if not torch.isfinite(value).all():
            raise UserError(f"{checkpoint} cannot be published: {name} is not finite")
    content = {
        "published": FORMAT_VERSION,
        "ghostdet": __version__,
        "classes": _classes(loaded.get("meta", {}), cfg, checkpoint),
        "metrics": _metrics(checkpoint, loaded.get("meta", {})),
        **encoded(parts),
    }
    with atomic_outputs(description) as folder:
        path = folder / weights.name
        stored = safetensors.torch.save(
            {
                name: value.detach().clone(memory_format=torch.contiguous_format)
                for name, value in state_dict.items()
            },
            # Names and shapes do not tell the gate, and a backbone can be filled from
            # this file. With two entries, whose order is random, checksums would vary.
            {"se_gate": getattr(getattr(model, "backbone", 0), "se_gate", "unknown")},
        )
        path.write_bytes(stored)  # with the usual permissions, not for the owner alone
        content["sha256"] = sha256(path)
        content["description_sha256"] = checksum(content)
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (folder / description.name).write_text(text, "utf-8")
        read = _build(load_published(folder / description.name))
        check_state_dict(read, get_state_dict(read_checkpoint(str(path))), str(path))
    # MMEngine's EMAHook stores the average as `state_dict`.
    taken = "moving average" if "ema_state_dict" in loaded else "as trained"
    count = len(content["classes"])
    print(
        f"{weights}: {len(state_dict)} tensors, {taken}\n"
        f"{description}: {count} classes, sha256 {content['sha256']}\n"
        f"evaluation: {_said(content['metrics'])}"
    )
    return weights


def published_parts(cfg: Config) -> dict[str, Any]:
    """Take ``model`` and ``pipeline`` out of a config.

    Raises:
        UserError: If a description may not hold them; names the place.
    """
    plain = cfg.to_dict()
    model = plain["model"]
    if plain.get("data_preprocessor") is not None:
        model.setdefault("data_preprocessor", plain["data_preprocessor"])
    pipeline = list(plain["test_dataloader"]["dataset"].get("pipeline", ()))
    parts = without_weights(dict(model=model, pipeline=pipeline))
    try:
        check_description(parts)
    except ValueError as error:
        raise UserError(
            f"{cfg.filename} cannot be published: {error}; docs/weights.md lists what "
            "published weights may need"
        ) from error
    return parts


def without_weights(node: Any) -> Any:
    """Drop the arguments that would load other weights, and the mark of a base."""
    if isinstance(node, dict):
        return {
            key: without_weights(value)
            for key, value in node.items()
            # All of it is built in MMDetection's scope.
            if key not in INITIAL and (key, value) != ("_scope_", "mmdet")
        }
    if isinstance(node, (list, tuple)):
        return type(node)(map(without_weights, node))
    return node


def _build(cfg: Config) -> nn.Module:
    init_default_scope(cfg.get("default_scope", "mmdet"))
    return MODELS.build(cfg.model)


def _metrics(checkpoint: str, meta: dict[str, Any]) -> dict[str, float]:
    """Read the metrics of a checkpoint from its run's record."""
    record = Path(checkpoint).with_name(RECORD)
    try:
        evaluations = json.loads(record.read_bytes())["evaluations"]
        (found,) = [e for e in evaluations if e["iter"] == meta["iter"]]
        return {k: float(v) for k, v in found.items() if "/" in k and v == v}
    except (OSError, KeyError, TypeError, ValueError):
        return {}


def _said(metrics: dict[str, float]) -> str:
    shown = [f"{name} {value:.4g}" for name, value in metrics.items()]
    return ", ".join(shown[:3]) or f"unknown, no {RECORD} of it beside the checkpoint"


def _classes(meta: dict[str, Any], cfg: Config, checkpoint: str) -> list[str]:
    """Read the names of the classes from the checkpoint, or from the config."""
    for found in (
        meta.get("dataset_meta"),
        cfg.test_dataloader.dataset.get("metainfo"),
    ):
        if found and found.get("classes"):
            return list(map(str, found["classes"]))
    raise UserError(
        f"neither {checkpoint} nor {cfg.filename} names the classes; publish a "
        "checkpoint of a training run, or set metainfo=dict(classes=(...)) of "
        "test_dataloader.dataset"
    )
