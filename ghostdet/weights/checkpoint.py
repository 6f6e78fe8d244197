"""Reading files of weights without running what is in them.

Not by ``torch.load``: an archive that unpacks to more than it is, or a storage larger
than the file, is to be refused before there is memory for it, and what is checked must
be what is read.
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from ghostdet.errors import UserError
from ghostdet.weights.pickles import Oversized, Pickles, Refused, expect
from ghostdet.weights.source import ADDRESS, REMOTE, fetch

# What torch.save writes: with its default, and before torch 1.6.
_ARCHIVE = b"PK\x03\x04"
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# An entry of an archive takes 100 bytes there, and ten times that when it is read.
_MAX_DIRECTORY = 16 * 2**20


def read_source(checkpoint: str | Path) -> tuple[Path, Any]:
    """Fetch a file of weights and read it.

    Args:
        checkpoint: As of :func:`~ghostdet.weights.fetch`.

    Returns:
        The path of the file, and what it holds.

    Raises:
        UserError: If it cannot be had or read. A download that cannot be read is
            removed again.
    """
    path = fetch(checkpoint)
    try:
        return path, read_file(path)
    except UserError:
        if str(checkpoint).startswith(ADDRESS):
            path.unlink(missing_ok=True)
        raise


def read_file(path: Path) -> Any:
    """Read what ``torch.save``, safetensors or PaddlePaddle wrote, to the CPU.

    Memory is bounded by the size of the file.

    Args:
        path: The file; ``.safetensors`` and ``.pdparams`` are known by their suffix.

    Returns:
        What it holds: tensors, arrays, numbers, text, Python's containers, MMEngine's
        ``HistoryBuffer`` and ``argparse.Namespace``. Of safetensors, ``state_dict`` and
        the file's ``metadata``.

    Raises:
        UserError: If the file is damaged, of another kind, or holds anything else.
    """
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
            return {
                "state_dict": safetensors.torch.load_file(path),
                "metadata": metadata,
            }
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if path.suffix == ".pdparams":
                return Pickles(size, encoding="latin1").read(file)
            start = file.read(len(_ARCHIVE))
            file.seek(0)
            return (_read_archive if start == _ARCHIVE else _read_old)(file, size)
    except Exception as error:  # an unpickler fails in any way on a file of any kind
        raise UserError(_refusal(path, error)) from None


def _read_archive(file: BinaryIO, size: int) -> Any:
    end = zipfile._EndRecData(file)
    if end and end[zipfile._ECD_SIZE] > _MAX_DIRECTORY:
        raise Oversized("an archive of more than a hundred thousand files")
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        names = {record.filename for record in records}
        (folder,) = {name.partition("/")[0] for name in names}
        if f"{folder}/constants.pkl" in names:
            raise Refused("a TorchScript program")
        if any(
            record.compress_type != zipfile.ZIP_STORED
            or record.compress_size != record.file_size
            for record in records
        ):
            raise Oversized("compressed data, which torch.save does not write")
        if sum(record.file_size for record in records) > size:
            raise Oversized("an archive that unpacks to more than it is")
        order = f"{folder}/byteorder"
        if order in names and archive.read(order) != b"little":
            raise Refused("numbers of a big-endian machine")
        done: dict[str, torch.UntypedStorage] = {}

        def storages(noted: Any) -> torch.TypedStorage:
            dtype, key, nbytes = _storage(noted)
            if key not in done:
                done[key] = _empty(archive.getinfo(f"{folder}/data/{key}").file_size)
                with archive.open(f"{folder}/data/{key}") as record:
                    _fill(done[key], record)
            return _typed(done[key], dtype, nbytes)

        content = io.BytesIO(archive.read(f"{folder}/data.pkl"))
        return Pickles(size, storages).read(content)


def _read_old(file: BinaryIO, size: int) -> Any:
    """Pickles, the third of which is what was saved, and then the storages' bytes."""
    done: dict[str, torch.UntypedStorage] = {}
    item_sizes: dict[str, int] = {}

    def storages(noted: Any) -> torch.TypedStorage:
        dtype, key, nbytes = _storage(noted)
        if key not in done:
            if nbytes + sum(storage.nbytes() for storage in done.values()) > size:
                raise Oversized("a storage larger than the file")
            done[key], item_sizes[key] = _empty(nbytes), dtype.itemsize
        return _typed(done[key], dtype, nbytes)

    pickles = Pickles(size, storages)
    if (pickles.read(file), pickles.read(file)) != (_MAGIC, _PROTOCOL):
        raise ValueError("of another kind")
    if expect(pickles.read(file), dict).get("little_endian") is not True:
        raise Refused("numbers of a big-endian machine")
    content = pickles.read(file)
    keys = expect(pickles.read(file), list)
    if sorted(keys) != sorted(done):
        raise Refused("storages without content")
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        if count * item_sizes[key] != done[key].nbytes():
            raise Refused("a storage of another size")
        _fill(done[key], file)
    return content


def _storage(noted: Any) -> tuple[torch.dtype, str, int]:
    """Type, key and bytes of a storage, from what a pickle notes of it."""
    kind, dtype, key, _, count, *view = expect(noted, tuple)
    if kind != "storage" or view not in ([], [None]):
        raise Refused("a storage of another kind")
    if not 0 <= expect(count, int) < 2**63:
        raise Refused("a storage of another size")
    return dtype, expect(key, str), count * expect(dtype, torch.dtype).itemsize


def _empty(nbytes: int) -> torch.UntypedStorage:
    return torch.UntypedStorage(nbytes)


def _fill(storage: torch.UntypedStorage, file: BinaryIO) -> None:
    """Read all of a storage."""
    if storage.nbytes() == 0:
        return
    numbers = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
    for start in range(0, len(numbers), 2**20):
        part = memoryview(numbers[start : start + 2**20])
        if file.readinto(part) != len(part):
            raise EOFError("the file ends early")


def _typed(
    storage: torch.UntypedStorage, dtype: torch.dtype, nbytes: int
) -> torch.TypedStorage:
    if nbytes != storage.nbytes():
        raise Refused("a storage of another size")
    return torch.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


def drop_configs(checkpoint: dict[str, Any]) -> None:
    """Remove the configs that MMEngine keeps as text in a checkpoint.

    ``Runner.resume`` and ``DetInferencer`` would run them as Python.

    Args:
        checkpoint: What :func:`read_file` returned; it is changed.
    """
    message_hub = checkpoint.get("message_hub")
    info = message_hub.get("runtime_info") if isinstance(message_hub, dict) else None
    for part in (checkpoint.get("meta"), info):
        if isinstance(part, dict):
            part.pop("config", None)
            part.pop("cfg", None)


def _refusal(path: Path, error: Exception) -> str:
    """Why a file is not opened."""
    text = str(error)[:200]
    if isinstance(error, Oversized):
        return (
            f"{path} is not opened, since reading it could fill the memory: {text}. "
            "Nothing that torch.save wrote is like that; have it saved again"
        )
    if isinstance(error, Refused):
        return (
            f"{path} is not opened, since it holds more than weights: {text}. "
            "Loading it could run code of whoever made it; if that is you, save its "
            "state_dict alone with torch.save and load that"
        )
    if isinstance(error, zipfile.BadZipFile):
        reason = f"failed reading zip archive: {text}"
    elif isinstance(error, EOFError):
        reason = "the file ends early"
    elif isinstance(error, MemoryError):
        reason = "it needs more memory than there is"
    elif isinstance(error, (RuntimeError, OSError)):
        reason = text.split(". ")[0]
    else:
        reason = "not in a form that PyTorch opens safely"
    return (
        f"{path} cannot be read as a checkpoint ({reason}); it is damaged or of "
        "another kind: take an earlier one, or copy it again"
    )


# MMEngine's log shows the last word of these functions' names.
@CheckpointLoader.register_scheme(prefixes="", force=True)
def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Make MMEngine load and resume through :func:`read_checkpoint`, to the CPU."""
    return read_checkpoint(filename)


@CheckpointLoader.register_scheme(prefixes=REMOTE, force=True)
def load_from_remote(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Make MMEngine load what is elsewhere through :func:`read_checkpoint`."""
    return read_checkpoint(filename)


def read_checkpoint(filename: str) -> dict[str, Any]:
    """Read a checkpoint; MMEngine loads and resumes through this function.

    Args:
        filename: Path of a ``.pth`` or ``.safetensors`` file, or what
            :func:`ghostdet.weights.fetch` takes.

    Returns:
        What the file holds, on the CPU, less the configs that MMEngine would run, see
        :func:`ghostdet.weights.drop_configs`.

    Raises:
        UserError: If the file is missing, cannot be downloaded, is damaged, no
            checkpoint, or holds types that are not known to be safe.
    """
    if not filename.startswith(REMOTE) and not Path(filename).expanduser().is_file():
        raise UserError(
            f"no checkpoint at {filename!r}; give the path of a .pth file, such as "
            "work_dirs/CONFIG/epoch_12.pth"
        )
    path, checkpoint = read_source(filename)
    if not isinstance(checkpoint, dict) or not all(
        isinstance(checkpoint.get(key, {}), dict) for key in ("state_dict", "meta")
    ):
        raise UserError(
            f"{path} holds no state_dict (found {type(checkpoint).__name__}); give a "
            "checkpoint of a training run, or what torch.save(model.state_dict()) wrote"
        )
    drop_configs(checkpoint)
    return checkpoint
