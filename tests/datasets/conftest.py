"""Data for the tests of ``ghostdet.datasets``."""

import traceback

import pytest

from ghostdet.errors import UserError


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
