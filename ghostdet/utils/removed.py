"""Functions that newer Pythons and setuptools removed and MMEngine and MMCV call."""

import importlib.util
import pkgutil
from importlib.machinery import ModuleSpec
from importlib.metadata import (
    PackageNotFoundError,
    distributions,
    packages_distributions,
)
from pathlib import Path

import mmengine
from mmengine.config import config
from mmengine.hub import hub
from mmengine.utils import package_utils


def ensure_removed_functions() -> None:
    """Replace what is missing. May be called any number of times.

    ``pkgutil.find_loader``, which Python 3.14 does not have, is called by MMEngine and
    MMCV to look for operators; ``pkg_resources``, which setuptools 82 does not have, by
    MMEngine to find the configs of ``_base_ = "mmdet::..."``.
    """
    if not hasattr(pkgutil, "find_loader"):
        pkgutil.find_loader = _find_loader
    if importlib.util.find_spec("pkg_resources") is None:
        try:
            package_utils.is_installed("torch")  # the forks' own does without
        except ModuleNotFoundError:
            for module in (mmengine.utils, package_utils, config, hub):
                module.is_installed = _is_installed
                module.get_installed_path = _get_installed_path


def _find_loader(name: str):
    spec = importlib.util.find_spec(name)
    return spec and spec.loader


def _module(package: str) -> ModuleSpec | None:
    """Find the module of a package, which may have another name."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        found = {known.name for known in distributions(name=package)}
        modules = packages_distributions().items()
        names = [name for name, packages in modules if found & {*packages}]
        spec = importlib.util.find_spec(names[0]) if names else None
    return spec if spec and spec.origin else None


def _is_installed(package: str) -> bool:
    return _module(package) is not None


def _get_installed_path(package: str) -> str:
    module = _module(package)
    if module is None:
        raise PackageNotFoundError(package)
    return str(Path(module.origin).parent)
