"""Values at the top of a config, such as classes, which its bases are written with."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from ghostdet.errors import ConfigError


class _Reading(NamedTuple):
    values: dict[str, Any]  # given to the bases
    asked: dict[str, Any]  # those that they asked for, as they got them
    files: tuple[str, ...]  # being read anew


_reading: ContextVar[_Reading] = ContextVar("reading")


def _state() -> _Reading:
    return _reading.get(_Reading({}, {}, ()))


def given(name: str, default: Any, optional: bool = False) -> Any:
    """Read a value that the user's config sets, for use in a base config.

    ::

        image_size = __import__("ghostdet").given("image_size", (320, 320))

    Args:
        name: Its name at the top of the config.
        default: The value if the config has none, and an example of its type. A whole
            number is 1 or more. Names can also be given as a file with one in each
            line, and two equal numbers as one.
        optional: Whether the value may be None.

    Raises:
        ConfigError: If the value is of another type.
    """
    state = _state()
    value = original = state.values.get(name, default)
    several = isinstance(default, tuple)
    names = several and isinstance(default[0], str)
    if names and isinstance(value, str):
        try:
            lines = Path(value).read_text("utf-8-sig").splitlines()
            value = [line.strip() for line in lines if line.strip()]
        except (OSError, UnicodeError, ValueError):
            pass  # refused below
    elif several and type(value) is int:
        value = (value,) * len(default)
    if several and isinstance(value, Sequence) and not isinstance(value, str):
        value = tuple(value)
    fits = (optional and value is None) or _like(value, default)
    if names and fits and value != default:
        fits = len({*value}) == len(value)
    if not fits:
        example = repr(default)
        if names:
            example = f"{default[:2]}, all different, or a file with one in each line"
        raise ConfigError(f"{name} is {original!r}, expected as {example}")
    state.asked[name] = value
    return value


def _like(value: Any, default: Any) -> bool:
    """Tell whether a value has the type of another."""
    if type(value) is not type(default):
        return False
    if isinstance(default, tuple):
        fits = len(value) == len(default) or isinstance(default[0], str)
        return fits and bool(value) and all(_like(v, default[0]) for v in value)
    return type(value) is not int or value > 0


def derive(config: dict[str, Any]) -> None:
    """Read a config's base again with the values above; the config's last line.

    ::

        _base_ = __import__("ghostdet").CONFIGS + "/own/light_s.py"

        data_root = "pets/"  # with train.json and val.json
        images = "photos/pets/"  # where their images are
        classes = ("cat", "dog")
        image_size = (320, 256)
        max_iters = 1000

        __import__("ghostdet").derive(globals())

    The bases are read anew with these values, for which they ask by :func:`given`.
    ``--cfg-options`` on a value does the same.

    Args:
        config: ``globals()`` of the file, which are changed.

    Raises:
        ConfigError: If a value is of another type than its base expects.
    """
    file = inspect.currentframe().f_back.f_code.co_filename
    state = _state()
    if file in state.files:
        return
    own = {key: value for key, value in config.items() if not key.startswith("_")}
    with giving({**own, **state.values}, (*state.files, file)) as asked:
        read = Config.fromfile(file).to_dict()
    read |= {key: value for key, value in asked.items() if key in own}
    state.asked.update(asked)
    for key, value in read.items():
        replaced = isinstance(value, dict) and key in config["_base_"]
        config[key] = {**value, "_delete_": True} if replaced else value


@contextmanager
def giving(
    values: dict[str, Any], files: tuple[str, ...] = ()
) -> Iterator[dict[str, Any]]:
    """Give values to the config that is read meanwhile, in place of its own.

    Yields:
        What its bases asked for, and got, by name.
    """
    state = _Reading(values, {}, files)
    token = _reading.set(state)
    try:
        yield state.asked
    finally:
        _reading.reset(token)
