"""Whole groups under faults: no promise is broken, whatever the seed."""

import pytest

from raft_store.simulation.__main__ import main, summary
from raft_store.simulation.world import Faults, World, simulate

SEEDS = range(1, 241)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_is_kept(seed):
    """Goal: no acknowledged proposal is lost, none applied twice, no stale read. Method: faults, heal, compare."""
    world = simulate(seed)
    assert len(world.judge.acknowledged) >= len(world.members)  # those made after the last fault, at least


@pytest.mark.parametrize("seed", range(1000, 1020))
def test_in_fair_weather_nothing_is_refused_or_unknown(seed):
    """Goal: leaders that hand over cost no proposal. Method: no faults but transfers; all proposals acknowledged."""
    faults = Faults(drop=0, repeat=0, straggle=0, every_ms=400, crash=0, partition=0, heal=0, transfer=1)
    world = World(seed, faults=faults)
    world.run(duration_ms=4000, proposals=100, reads=20, patience_ms=(60_000, 60_000))
    world.heal_and_settle()
    # The snapshots of this small world are so frequent that one may overtake a member with a slow disk.
    assert len(world.judge.acknowledged) + len(world.overtaken) == 100 + len(world.members)
    assert len(world.overtaken) < 10


def test_a_seed_replays_its_history_step_by_step():
    first, second = [], []
    simulate(7, tell=first.append)
    simulate(7, tell=second.append)
    assert first == second
    assert any("became leader" in line for line in first)
    assert any("crashes" in line for line in first)


def test_seeds_differ():
    assert summary(simulate(1)) != summary(simulate(2))


def test_the_command_replays_a_seed(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["simulation", "--seed", "7", "--count", "2"])
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["seed 7", "seed 8"]
