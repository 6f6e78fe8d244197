import os
import pkgutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from types import ModuleType

import mmcv
import pytest
from mmcv.utils.env import collect_env
from mmcv.utils.ext_loader import check_ops_exist

from ghostdet.ops import ensure_mmcv_ops, operator_backend


@pytest.fixture
def fresh(monkeypatch):
    """An interpreter that has not looked for MMCV's operators yet."""
    monkeypatch.setattr(mmcv, "_ext", mmcv._ext)
    monkeypatch.delitem(sys.modules, "mmcv._ext")
    return monkeypatch


@pytest.fixture
def compiled(fresh, tmp_path):
    """A directory where MMCV looks for its compiled operators first."""
    fresh.setattr(mmcv, "__path__", [str(tmp_path), *mmcv.__path__])
    return tmp_path


def test_the_module_is_found(ours):
    ensure_mmcv_ops()
    extension = sys.modules["mmcv._ext"]
    assert mmcv._ext is extension and extension.__spec__ is not None
    assert pkgutil.find_loader("mmcv._ext") is not None
    assert check_ops_exist()
    ensure_mmcv_ops()
    assert sys.modules["mmcv._ext"] is extension
    assert operator_backend() == "torchvision"
    report = collect_env()
    assert "ghostdet on torchvision" in report["MMCV Compiler"]
    assert report["MMCV CUDA Compiler"] == "not available"


def test_an_operator_that_is_not_provided_says_so(ours):
    operator = sys.modules["mmcv._ext"].carafe_forward
    with pytest.raises(RuntimeError, match="'carafe_forward'.*docs/operators.md"):
        operator(1, scale=2)
    assert not hasattr(sys.modules["mmcv._ext"], "_private")


def test_operators_already_loaded_are_left_alone(fresh):
    module = ModuleType("mmcv._ext")
    fresh.setitem(sys.modules, "mmcv._ext", module)
    ensure_mmcv_ops()
    assert sys.modules["mmcv._ext"] is module
    assert operator_backend() == "mmcv"


def test_compiled_operators_are_left_alone(compiled):
    (compiled / "_ext.py").write_text("compiled = True")
    assert operator_backend() == "mmcv"
    assert sys.modules["mmcv._ext"].compiled


def test_compiled_operators_that_do_not_load_are_an_error(compiled):
    broken = compiled / f"_ext{EXTENSION_SUFFIXES[0]}"
    broken.write_bytes(b"no library")
    with pytest.raises(RuntimeError, match="pip install mmcv-lite") as error:
        ensure_mmcv_ops()
    assert str(broken) in str(error.value)
    assert str(error.value.__cause__) in str(error.value)
    assert "mmcv._ext" not in sys.modules


@pytest.mark.parametrize("name", ["mmengine", "mmcv", "mmdet"])
def test_what_is_not_installed(fresh, name):
    fresh.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeError, match=rf'{name} .*pip install "ghostdet\[lite\]"'):
        ensure_mmcv_ops()


def test_a_package_and_its_fork(fresh, tmp_path):
    for name in ("mmdet", "onedl_mmdetection"):
        (tmp_path / f"{name}-3.5.1.dist-info").mkdir()
    fresh.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="pip uninstall mmdet onedl-mmdetection"):
        ensure_mmcv_ops()


@pytest.mark.parametrize(
    "command", ["-m ghostdet_command train x.py", "tools/train.py x.py"]
)
def test_commands_without_a_traceback(project, tmp_path, command):
    for name in ("mmengine-0.10.7", "onedl_mmengine-0.10.12"):
        (tmp_path / f"{name}.dist-info").mkdir()
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=project,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{project}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: mmengine and its fork onedl-mmengine are both" in done.stderr


@pytest.mark.parametrize(
    "code",
    ["import nonsense", "raise ImportError('libGL.so.1')", "assert False, 'nonsense'"],
)
def test_mmcv_that_cannot_be_imported(fresh, tmp_path, code):
    (tmp_path / "mmcv.py").write_text(code)
    fresh.syspath_prepend(tmp_path)
    fresh.delitem(sys.modules, "mmcv")
    with pytest.raises(RuntimeError, match="cannot be imported.*(nonsense|libGL)"):
        ensure_mmcv_ops()
