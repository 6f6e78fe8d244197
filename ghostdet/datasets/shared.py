"""COCO annotations in memory once a machine, whatever the number of processes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mmdet
import mmengine
import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.logging import print_log

from ghostdet._version import __version__

_ARRAYS = ("data_bytes", "data_address")  # MMEngine's names
_VERSIONS = (__version__, mmdet.__version__, mmengine.__version__)


@DATASETS.register_module()
class SharedCocoDataset(CocoDataset):
    """MMDetection's ``CocoDataset``, with annotations that processes share.

    Every rank of a run parses the annotation file for itself and keeps what it gave:
    for COCO's training set that is half a minute and hundreds of megabytes a rank.
    Here the first process of a machine writes MMEngine's serialised samples to a
    cache, the others wait for it, and all map the same file, read only. Forked workers
    of a DataLoader (MMEngine's default) share it likewise. A later run maps it at
    once.

    Samples, ``metainfo``, ``cat_ids`` and ``cat2label`` are those of ``CocoDataset``.
    ``cat_img_map``, which MMDetection reads for filtering alone, is not kept.

    The cache is ``$XDG_CACHE_HOME/ghostdet/annotations``, by default in ``~/.cache``.
    It has to be ours and closed to others, since MMEngine unpickles samples. An entry
    serves the same file (machine, path, size, time of change) with the same arguments
    and versions; when the file has changed, entries of the older one are deleted. One
    that is damaged is written again. Where the annotations are not a local file, there
    is a ``proposal_file``, ``serialize_data`` is False, the class is derived from this
    one or the cache cannot be used, annotations are loaded as ever, and a warning says
    why.

    The arguments are those of :class:`mmdet.datasets.CocoDataset`.

    Example:
        >>> SharedCocoDataset(ann_file='train.json', lazy_init=True).ann_file
        'train.json'
    """

    def full_init(self) -> None:
        """Map the samples, after writing them if no process has.

        Raises:
            FileNotFoundError: If there is no annotation file.
        """
        if self._fully_initialized:
            return
        try:
            entry = _cache() / self._key()
            with _locked(entry):
                if not self._mapped(entry):
                    super().full_init()
                    self._write(entry)
                    self._map(entry)
        except _NotSharedError as error:
            print_log(
                f"{self.ann_file}: annotations are not shared between processes "
                f"({error}), so each keeps its own",
                logger="current",
                level=logging.WARNING,
            )
            super().full_init()  # nothing is left to do if they were not written

    def _key(self) -> str:
        """Name of the entry: the file's place, its state, and what was made of it."""
        if type(self) is not SharedCocoDataset:  # whose code may change unnoticed
            raise _NotSharedError(f"{type(self).__name__} may read them in its own way")
        backend = get_file_backend(self.ann_file, backend_args=self.backend_args)
        if not isinstance(backend, LocalBackend):
            raise _NotSharedError("they are not a local file")
        if self.proposal_file is not None:
            raise _NotSharedError("there is a proposal_file")
        if not self.serialize_data:
            raise _NotSharedError("serialize_data is False")
        path = os.path.realpath(self.ann_file)
        status = os.stat(path)
        arguments = {k: v for k, v in vars(self).items() if k != "pipeline"}
        parts = (
            [os.uname().nodename, path],  # machines may share a home
            [status.st_size, status.st_mtime_ns],
            [_VERSIONS, arguments],
        )
        try:
            texts = [json.dumps(part, default=np.ndarray.tolist) for part in parts]
        except TypeError as error:
            raise _NotSharedError(f"an argument cannot be compared: {error}") from error
        return "-".join(hashlib.sha256(t.encode()).hexdigest()[:16] for t in texts)

    def _write(self, entry: Path) -> None:
        """Write what is loaded, and delete what older states of the file gave."""
        path, state, _ = entry.name.split("-")
        for older in entry.parent.glob(f"{path}-*"):
            if not older.name.startswith(f"{path}-{state}-"):
                shutil.rmtree(older, ignore_errors=True)
        folder = entry.with_name(f".{path}")  # the lock's holder is alone with it
        try:
            shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
            folder.mkdir(mode=0o700)
            for name in _ARRAYS:
                with (folder / f"{name}.npy").open("wb") as file:
                    np.save(file, getattr(self, name))
                    os.fsync(file.fileno())
            with (folder / "cat_ids.json").open("w") as file:
                json.dump(self.cat_ids, file)
                file.flush()
                os.fsync(file.fileno())
            _sync(folder)
            folder.rename(entry)
            _sync(entry.parent)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise _NotSharedError(f"cannot write {entry.parent}: {error}") from error
        print_log(
            f"{self.ann_file}: {len(self.data_address)} images, "
            f"{len(self.data_bytes) / 1e6:.0f} MB shared as {entry}",
            logger="current",
        )

    def _mapped(self, entry: Path) -> bool:
        """Map an entry; False if there is none, or it was damaged and is removed."""
        try:
            self._map(entry)
        except (OSError, ValueError, EOFError) as error:
            if entry.is_dir():
                print_log(
                    f"{entry}: damaged ({error}), and written again",
                    logger="current",
                    level=logging.WARNING,
                )
                shutil.rmtree(entry, ignore_errors=True)
            return False
        return True

    def _map(self, entry: Path) -> None:
        """Take samples and categories from an entry."""
        for name in _ARRAYS:
            mapped = np.load(entry / f"{name}.npy", mmap_mode="r")
            setattr(self, name, mapped.view(np.ndarray))
        self.cat_ids = json.loads((entry / "cat_ids.json").read_text())
        self.cat2label = {cat_id: i for i, cat_id in enumerate(self.cat_ids)}
        self.__dict__.pop("cat_img_map", None)
        self._fully_initialized = True


class _NotSharedError(Exception):
    """Annotations cannot be shared, for the reason given."""


def _sync(folder: Path) -> None:
    """See that the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cache() -> Path:
    """The folder of entries, ours and closed to others."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        folder = base if base.is_absolute() else Path.home() / ".cache"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("ghostdet", "annotations"):
            folder /= name
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                raise _NotSharedError(f"{folder} is not a folder of yours; remove it")
            if status.st_mode & 0o077:
                raise _NotSharedError(
                    f"{folder} is open to others; close it with chmod 700 {folder}"
                )
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        raise _NotSharedError(
            f"no cache: {error}; set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    return folder


@contextmanager
def _locked(entry: Path) -> Iterator[None]:
    """Be the one process of the machine that has to do with an annotation file."""
    path = entry.with_name(f"{entry.name.split('-')[0]}.lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        raise _NotSharedError(f"cannot lock {path}: {error}") from error
    try:
        yield
    finally:
        os.close(descriptor)  # which unlocks
