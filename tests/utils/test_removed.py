"""Python without pkgutil.find_loader, and an environment without pkg_resources."""

import pkgutil
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import mmdet
import mmengine
import pytest
from mmcv.utils.ext_loader import check_ops_exist
from mmengine.config import Config, config
from mmengine.hub import get_config
from mmengine.utils import package_utils
from mmengine.utils.dl_utils.misc import mmcv_full_available

import ghostdet
from ghostdet.utils.removed import ensure_removed_functions


@pytest.fixture(autouse=True)
def removed(monkeypatch):
    if hasattr(pkgutil, "find_loader"):
        monkeypatch.delattr(pkgutil, "find_loader")
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    ensure_removed_functions()


def test_operators_are_found():
    assert check_ops_exist() and mmcv_full_available()
    assert pkgutil.find_loader("nonsense") is None


def test_packages():
    package = mmdet.__path__[0]
    assert mmengine.utils.is_installed("mmdet")
    assert mmengine.utils.get_installed_path("mmdet") == package
    assert mmengine.utils.get_installed_path("pyyaml").endswith("yaml")
    assert not mmengine.utils.is_installed("nonsense")
    with pytest.raises(PackageNotFoundError, match="nonsense"):
        mmengine.utils.get_installed_path("nonsense")


def test_functions_that_do_without_are_kept(monkeypatch):
    monkeypatch.setattr(package_utils, "is_installed", str)
    monkeypatch.setattr(config, "is_installed", repr)
    ensure_removed_functions()
    assert package_utils.is_installed is str and config.is_installed is repr


def test_configs_of_other_packages(tmp_path):
    name = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"
    (tmp_path / "own.py").write_text(f"_base_ = '{name}'\nmodel = dict(neck=None)")
    model = Config.fromfile(tmp_path / "own.py").model
    assert (model.type, model.neck) == ("RetinaNet", None)
    assert get_config(name).model.type == "RetinaNet"


@pytest.mark.parametrize(
    "name", ["retinanet_ghostnet_fpn.py", "own/light_s.py", "_base_/default_runtime.py"]
)
def test_our_configs(tmp_path, name):
    (tmp_path / "own.py").write_text(f"_base_ = ['ghostdet::{name}']")
    ours = Config.fromfile(Path(ghostdet.CONFIGS, name))
    assert Config.fromfile(tmp_path / "own.py").to_dict() == ours.to_dict()


def test_no_config_of_ours(tmp_path):
    (tmp_path / "own.py").write_text("_base_ = 'ghostdet::nonsense.py'")
    with pytest.raises(FileNotFoundError, match="configs/nonsense.py"):
        Config.fromfile(tmp_path / "own.py")
