"""What the raftos engine makes of the seam, where that is ours and not the library's."""

import asyncio

import pytest

from raft_store.engine import MemberId, NoLeader


async def test_what_took_effect_is_not_told_as_what_did_not(tmp_path, monkeypatch):
    """Goal: nobody writes twice. Method: of three that are submitted together, no leader is there for the second."""
    raftos_engine = pytest.importorskip(
        "raft_store.engines.raftos_engine", reason="raftos is not installed (docs/raftos.md)"
    )
    engine = raftos_engine.RaftosEngine(
        raftos_engine.RaftosConfig(
            member=MemberId(1), members={MemberId(1): "127.0.0.1:1"}, data_dir=tmp_path, cluster="c"
        )
    )
    proposed = []

    async def propose(data, *, timeout_s):
        proposed.append(data)
        if data == b"b":
            raise NoLeader("nobody")
        return data.upper()

    monkeypatch.setattr(engine, "propose", propose)
    told = asyncio.get_running_loop().create_future()
    engine.submit([b"a", b"b", b"c"], lambda results, exc: told.set_result((results, exc)), timeout_s=1)
    async with asyncio.timeout(5):
        results, exc = await told
    assert (results[0], results[2], exc) == (b"A", b"C", None)
    assert isinstance(results[1], NoLeader)
