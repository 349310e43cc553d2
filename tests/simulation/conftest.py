"""Torn tails are daily bread here: their warnings would bury a failure's own lines."""

import logging

import pytest


@pytest.fixture(autouse=True)
def _quiet_log_file():
    logger = logging.getLogger("raft_store.disk.wal")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)
