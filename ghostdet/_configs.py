"""The folder of our configs, in a wheel or a checkout."""

from pathlib import Path

_folder = Path(__file__).parent
#: In a config of your own:
#: ``_base_ = __import__("ghostdet").CONFIGS + "/retinanet_ghostnet_fpn.py"``.
CONFIGS = str(
    next(filter(Path.is_dir, (_folder / ".mim/configs", _folder.parent / "configs")))
)
