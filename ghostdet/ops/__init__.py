"""MMCV's operators on torchvision's kernels, for MMCV without compiled ones.

MMDetection imports ``mmcv.ops``, which loads the compiled module ``mmcv._ext``.
``mmcv-lite`` does not have it. :func:`ensure_mmcv_ops` puts a module with the same
interface in its place, which uses PyTorch and torchvision only: it runs on CPU and GPU
and needs no compiler. A compiled ``mmcv._ext`` is left alone.

Example:
    >>> from ghostdet.ops import ensure_mmcv_ops, operator_backend
    >>> ensure_mmcv_ops()
    >>> operator_backend() in ('mmcv', 'torchvision')
    True
"""

import importlib
import importlib.util
import sys
from importlib.metadata import Distribution

__all__ = ["ensure_mmcv_ops", "operator_backend"]

_EXTENSION = "mmcv._ext"
# Packages by what they import as, and the distributions of the maintained forks.
_FORKS = {
    "mmengine": "onedl-mmengine",
    "mmcv": "onedl-mmcv",
    "mmdet": "onedl-mmdetection",
}


def ensure_mmcv_ops() -> None:
    """Make ``mmcv.ops`` importable. May be called any number of times.

    Raises:
        RuntimeError: If MMEngine, MMCV, its compiled operators or MMDetection cannot be
            imported. It is never an ``ImportError``, which MMEngine replaces by advice
            on PYTHONPATH.
    """
    if _EXTENSION in sys.modules:
        return
    for name in _FORKS:
        _import(name)
    mmcv = sys.modules["mmcv"]
    compiled = importlib.util.find_spec(_EXTENSION)
    if compiled is None:
        from ghostdet.ops.extension import load_operators

        sys.modules[_EXTENSION] = mmcv._ext = load_operators(_EXTENSION)
        return
    try:
        importlib.import_module(_EXTENSION)
    except Exception as error:
        raise RuntimeError(
            f"MMCV's compiled operators, {compiled.origin}, cannot be loaded: "
            f"{error}\nThey were most likely built for another PyTorch. Either build "
            "MMCV for this one (docs/operators.md), or do without: "
            "`pip uninstall mmcv && pip install mmcv-lite==2.1.0`."
        ) from error


def operator_backend() -> str:
    """Name the package whose operators ``mmcv.ops`` runs, for logs and error reports.

    Returns:
        str: ``'mmcv'`` for a compiled MMCV, ``'torchvision'`` for this package.

    Raises:
        RuntimeError: See :func:`ensure_mmcv_ops`, which is called first.
    """
    ensure_mmcv_ops()
    from ghostdet.ops.extension import OperatorModule

    ours = isinstance(sys.modules[_EXTENSION], OperatorModule)
    return "torchvision" if ours else "mmcv"


def _import(name: str) -> None:
    """Import a package, turning any error into a ``RuntimeError``."""
    if all(next(Distribution.discover(name=n), None) for n in (name, _FORKS[name])):
        raise RuntimeError(
            f"{name} and its fork {_FORKS[name]} are both installed, in one folder. "
            f"Type `pip uninstall {name} {_FORKS[name]}` and install one of them "
            "(docs/operators.md)."
        )
    try:
        importlib.import_module(name)
    except (AssertionError, ImportError) as error:  # MMDetection asserts versions
        remedy = ""
        if isinstance(error, ModuleNotFoundError) and error.name in _FORKS:
            remedy = (
                '. Type `pip install "ghostdet[lite]"`, which needs no compiler; '
                "docs/operators.md is on compiled operators and on the maintained forks"
            )
        if "libGL" in str(error) or "libgthread" in str(error):
            remedy = (
                ". OpenCV needs libraries of a desktop: `apt install libgl1 "
                "libglib2.0-0`, or do without: `pip uninstall opencv-python && pip "
                "install opencv-python-headless`"
            )
        raise RuntimeError(f"{name} cannot be imported: {error}{remedy}") from error
