"""Find keys of a config that nothing reads."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Any

import mmdet.registry
import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner

from ghostdet.errors import UserError
from ghostdet.utils.components import walk

OWN_KEYS = "own_keys"
# Keys at the top of a config that are read: the Runner's arguments,
READ = {
    *inspect.signature(Runner).parameters,
    # others that the Runner looks up,
    *("custom_imports", "model_wrapper_cfg", "find_unused_parameters", "sync_bn"),
    *("compile", "activation_checkpointing", "efficient_conv_bn_eval", "runner_type"),
    # and keys of test-time augmentation and published weights.
    *("tta_model", "tta_pipeline", "dataset_meta", "weights_sha256"),
    OWN_KEYS,
}


def refuse_misspelt(
    cfg: Config, options: Collection[str], values: Collection[str] = ()
) -> None:
    """Refuse keys that have no effect.

    These are keys that resemble one that is read, and options that set a key which
    nothing reads at the top of the config, such as a variable of the file. A config
    lists further keys that its own code reads in ``own_keys``.

    Args:
        cfg: The config.
        options: Dotted keys that were merged into it.
        values: Names that its bases ask for (:func:`ghostdet.given`).

    Raises:
        UserError: If there is such a key; names the right one.
    """
    known = READ | {*(cfg.get(OWN_KEYS) or ()), *values}
    plain = cfg.to_dict()
    for option in options:
        if option.partition(".")[0] not in known:
            raise UserError(
                f"--cfg-options {option} has no effect: it is not a part of a run, and "
                f"what {cfg.filename} computes from it is computed already; "
                + _advice(option, plain, known)
            )
    for key in plain:
        if key not in known and (right := get_close_matches(key, known, 1, 0.9)):
            raise UserError(
                f"{cfg.filename} has {key!r}, which nothing reads; did you mean "
                f"{right[0]!r}? If not, list it: {OWN_KEYS} = [{key!r}]"
            )
    for place, key, right in _resembling(plain, known):
        # If an option added one of two neighbours, it is the wrong one.
        if f"{place}{right}" in options:
            key, right = right, key
        raise UserError(
            f"{cfg.filename} has {place}{key}, which nothing reads; did you mean "
            f"{place}{right}?"
        )


def _advice(option: str, plain: dict, known: set[str]) -> str:
    """Say where an option belongs."""
    root, _, rest = option.partition(".")
    if root == "data_root":
        return "--data-root DIR moves all datasets"
    parts = {key: value for key, value in plain.items() if key in known}
    found = [place for place, _ in walk(parts) if f".{place}".endswith(f".{option}")]
    if close := get_close_matches(root, known, 1, 0.8):
        found.insert(0, close[0] + (rest and f".{rest}"))
    if not found:
        return f"list a key that your own code reads in {OWN_KEYS}"
    return f"did you mean {' or '.join(found[:3])}?"


def _resembling(plain: dict, known: set[str]) -> Iterator[tuple[str, str, str]]:
    """Find keys that resemble an argument of their component, or a neighbour.

    Yields:
        The place with a dot, the key, and the one that it resembles.
    """
    for place, node in walk({k: v for k, v in plain.items() if k in known}):
        if not isinstance(node, dict):
            continue
        keys = sorted(key for key in node if isinstance(key, str))
        names = _arguments(node["type"]) if "type" in node else set()
        for key in keys:
            if names and key not in {"type", *names}:
                found = get_close_matches(key, names, 1, 0.88)
            else:  # MMDetection reads dictionaries without a type key by key
                found = [] if names else [k for k in keys if _without(k, key)]
            for right in found:
                yield f"{place}.", key, right


def _without(key: str, shorter: str) -> bool:
    """Tell whether one key is another without one of its letters."""
    letters = (i for i, letter in enumerate(key) if letter.isalpha())
    return any(key[:i] + key[i + 1 :] == shorter for i in letters)


def _arguments(kind: Any) -> set[str]:
    """List the arguments that a component names, in all of its classes."""
    if isinstance(kind, str):
        registries = [
            value
            for module in (mmdet.registry, mmengine.registry)
            for value in vars(module).values()
            if isinstance(value, Registry)
        ]
        bare = kind.rpartition(".")[2]
        kind = next((r.module_dict[bare] for r in registries if bare in r), None)
    classes = kind.__mro__[:-1] if isinstance(kind, type) else ()
    return {
        name
        for cls in classes
        if "__init__" in vars(cls)
        for name in inspect.signature(cls.__init__).parameters
    }
