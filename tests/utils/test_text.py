import logging
import warnings

import pytest

from ghostdet.utils.text import quiet


def test_quiet(caplog, recwarn):
    logger = logging.getLogger("ghostdet.test")
    with pytest.raises(ValueError), quiet(logger):
        logger.warning("not shown")
        logger.error("shown")
        warnings.warn("not shown", stacklevel=1)
        raise ValueError
    logger.warning("shown again")
    assert [record.message for record in caplog.records] == ["shown", "shown again"]
    assert not recwarn
