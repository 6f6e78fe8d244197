"""GhostNet detectors for MMDetection.

Importing the package registers everything in MMDetection's registries, after giving
MMCV its operators where it was installed without compiled ones.
"""

from pathlib import Path as _Path

from ghostdet._version import __version__
from ghostdet.ops import ensure_mmcv_ops

ensure_mmcv_ops()

_folder = _Path(__file__).parent
#: Folder of our configs, in a wheel or a checkout. In a config of your own:
#: ``_base_ = __import__("ghostdet").CONFIGS + "/retinanet_ghostnet_fpn.py"``.
CONFIGS = str(
    next(filter(_Path.is_dir, (_folder / ".mim/configs", _folder.parent / "configs")))
)

from ghostdet import datasets, engine, evaluation, models, weights  # noqa: E402

__all__ = [
    "CONFIGS",
    "__version__",
    "datasets",
    "engine",
    "evaluation",
    "models",
    "weights",
]
