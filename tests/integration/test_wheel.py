import os
import shutil
import subprocess
import sys
import zipfile

import pytest


def run(*command, cwd):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_wheel(project, tmp_path):
    listed = run("git", "ls-files", "-co", "--exclude-standard", cwd=project)
    if listed.returncode:
        pytest.skip("needs a git checkout, for its list of files")
    source = tmp_path / "source"  # building leaves files behind
    for name in listed.stdout.splitlines():
        if (project / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(project / name, source / name)
    built = run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"),
        *("--no-index", "--wheel-dir", str(tmp_path), str(source)),
        cwd=tmp_path,
    )
    if built.returncode and "setuptools" in built.stderr:
        pytest.skip(f"needs a newer setuptools: {built.stderr.strip()[-200:]}")
    assert built.returncode == 0, built.stderr

    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tree = {str(p.relative_to(source)) for p in source.rglob("*") if p.is_file()}
    for folder, inside in (
        ("ghostdet/", "ghostdet/"),
        ("configs/", "ghostdet/.mim/configs/"),
        ("tools/", "ghostdet/.mim/tools/"),
    ):
        wanted = {inside + n.removeprefix(folder) for n in tree if n.startswith(folder)}
        assert wanted <= names
    assert {"ghostdet/py.typed", "ghostdet/.mim/tools/train.py"} <= names
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}
    shown = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import ghostdet, ghostdet_command as c; print(ghostdet.CONFIGS, c.TOOLS)",
        ],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    inside = tmp_path / "site/ghostdet/.mim"
    assert shown.stdout.strip() == f"{inside / 'configs'} {inside / 'tools'}"
    assert not [n for n in names if "tests/" in n or "__pycache__" in n]
