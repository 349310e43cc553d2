"""The benchmark of the front stands between the services and an engine of its own: it has to go on working."""

import pytest

from benchmarks import front


@pytest.mark.parametrize("lot", [1, 16])
async def test_every_put_is_answered(lot, monkeypatch):
    monkeypatch.setattr(front, "ROUNDS", 1)
    assert await front.measure(lot, lot * front.CONNECTIONS, None) > 0  # it asserts the rest itself
