"""Data for the tests of ``ghostdet.datasets``."""

import gc
import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
MINI_COCO = PROJECT.parent / "shared" / "data" / "mini_coco"


@pytest.fixture(scope="session")
def trees_wheel() -> Path:
    """The DeepForest wheel, which is not downloaded for a test."""
    named = os.environ.get("GHOSTDET_TREES_WHEEL")
    candidates = [Path(named)] if named else []
    candidates += sorted((PROJECT / "data" / "trees").glob("*.whl"))
    for path in candidates:
        if path.is_file():
            return path
    pytest.skip("needs the DeepForest wheel: run `make demo` once, with a network")


@pytest.fixture(scope="session")
def mini_coco() -> Path:
    """A read-only part of COCO 2017."""
    if not MINI_COCO.is_dir():
        pytest.skip(f"needs {MINI_COCO}")
    return MINI_COCO


@pytest.fixture
def workers():
    """For a test in which a DataLoader's worker raises.

    The traceback keeps the loader's iterator alive, and a worker forked later would
    inherit it and spend five seconds on shutting down workers that are not its own.
    """
    yield
    gc.collect()
