"""The folder of our configs, in a wheel or a checkout."""

import os
from pathlib import Path

from mmengine.config import Config

_folder = Path(__file__).parent
#: In a config of your own:
#: ``_base_ = __import__("ghostdet").CONFIGS + "/retinanet_ghostnet_fpn.py"``.
CONFIGS = str(
    next(filter(Path.is_dir, (_folder / ".mim/configs", _folder.parent / "configs")))
)

_get_cfg_path = Config._get_cfg_path


def _with_ours(cfg_path: str, filename: str) -> tuple[str, str | None]:
    """Find ``ghostdet::NAME``; MMEngine has a fixed list of packages."""
    package, _, name = cfg_path.rpartition("::")
    if package == "ghostdet":
        return os.path.join(CONFIGS, name), None
    return _get_cfg_path(cfg_path, filename)


Config._get_cfg_path = staticmethod(_with_ours)
