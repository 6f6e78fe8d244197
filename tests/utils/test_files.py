"""Files are written atomically, and errors name the option to change."""

import os
import signal
from pathlib import Path

import pytest

from ghostdet.errors import UserError
from ghostdet.utils import files
from ghostdet.utils.files import atomic_outputs, atomic_write, check_writable


@pytest.mark.parametrize("moment", ["open", "fsync", "replace", "close"])
def test_killed_while_writing(tmp_path, moment):
    """The file has its old content until it is renamed, and then the new one."""
    path = tmp_path / "file"
    atomic_write(path, b"old")
    child = os.fork()
    if child == 0:

        def kill(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(files if moment == "open" else os, moment, kill)
        atomic_write(path, b"new" * 1000)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert path.read_bytes() == (b"new" * 1000 if moment == "close" else b"old")


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, "old")
    if Path("/dev/full").exists():
        path.with_name("file.partial").symlink_to("/dev/full")  # fills up on the way
        with pytest.raises(UserError, match="No space left on device"):
            atomic_write(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_outputs_are_moved_together(tmp_path):
    def write(*names):
        with atomic_outputs(tmp_path / "new/a.txt") as folder:
            for name in names:
                (folder / name).write_text(name)
            assert not (tmp_path / "new/a.txt").exists()
            if "b.txt" not in names:
                raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write("a.txt")
    assert not list((tmp_path / "new").iterdir())
    write("a.txt", "b.txt")
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"a.txt", "b.txt"}
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written .* with --out"):
        with atomic_outputs(tmp_path / "file/a.txt"):
            pass


@pytest.mark.parametrize("folder", ["file", "file/below", "/proc/nowhere", ""])
def test_folder_that_cannot_be_written(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"'{folder}' cannot be .* with --out"):
        check_writable(folder, "--out")
