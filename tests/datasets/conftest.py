"""Data for the tests of ``ghostdet.datasets``."""

import os
import traceback
from pathlib import Path

import pytest

from ghostdet.errors import UserError

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
def failure():
    """A function that runs through a DataLoader and returns its UserError."""

    def run(loader) -> UserError:
        try:
            list(loader)
        except UserError as err:
            # The frames hold the iterator in a cycle. Collected later, it waits five
            # seconds for each worker, and so does every worker forked meanwhile.
            traceback.clear_frames(err.__traceback__)
            return err
        pytest.fail("no UserError")

    return run
