"""GhostNet detectors for MMDetection.

Importing the package registers everything in MMDetection's registries, after giving
MMCV its operators where it was installed without compiled ones, and MMEngine and MMCV
the functions that newer Pythons and setuptools removed.
"""

import warnings

from pycocotools import coco

from ghostdet._version import __version__
from ghostdet.ops import ensure_mmcv_ops

# MMDetection's GFLHead reads it itself.
warnings.filterwarnings("ignore", ".*`num_anchors` is deprecated")
ensure_mmcv_ops()

from ghostdet.utils.removed import ensure_removed_functions  # noqa: E402

ensure_removed_functions()

from ghostdet import datasets, engine, evaluation, models, weights  # noqa: E402
from ghostdet._configs import CONFIGS  # noqa: E402
from ghostdet._values import derive, given  # noqa: E402
from ghostdet.utils.files import open_json  # noqa: E402

coco.open = open_json  # for all datasets and metrics of MMDetection

__all__ = [
    "CONFIGS",
    "__version__",
    "datasets",
    "derive",
    "engine",
    "evaluation",
    "given",
    "models",
    "weights",
]
