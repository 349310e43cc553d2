"""Real members under real faults, for a short while; ``make robustness MINUTES=60`` goes on for longer.

Which faults strike is drawn from the seed; when they meet which request is up to the machine. So a failure here leaves
its whole history, and the members' logs and disks, in the folder that its message names.
"""

import asyncio
import importlib.util
from random import Random

import pytest

from deploy.experiments.robustness.__main__ import main
from deploy.experiments.robustness.members import Members
from deploy.experiments.robustness.nemesis import (
    WITHOUT_WIRES,
    compact,
    failing_disk,
    kill,
    kill_all,
    partition,
    pause,
    replace,
    slow_disk,
)
from deploy.experiments.robustness.run import Shape, run_round

pytestmark = pytest.mark.timeout(300)  # a minute and a half on a machine with nothing else to do


async def torment(folder, *, size, faults, for_s, seed):
    async with Members(folder / "members", size=size, engine="native", random=Random(seed)) as members:
        each = await run_round(members, 1, seed, Shape(faults=faults, for_s=for_s))
    assert each.judgement.faults == (), f"see {folder}"
    assert each.judgement.decided
    assert each.judgement.acknowledged > 20
    assert each.judgement.events > 10
    assert sum(mark.what != "mended" for mark in each.marks) >= 3
    return each


async def test_three_members_keep_every_promise(tmp_path):
    await torment(
        tmp_path, size=3, faults=(kill, pause, partition, failing_disk, compact, kill_all, replace), for_s=15.0, seed=1
    )


async def test_five_members_keep_every_promise(tmp_path):
    await torment(tmp_path, size=5, faults=(kill, pause, partition, slow_disk), for_s=6.0, seed=2)


async def test_wires_are_cut_one_way(tmp_path):
    """Goal: the proxies do what they say. Method: cut the leader's words off; another member has to lead."""
    async with Members(tmp_path / "members", size=3, engine="native", random=Random(3)) as members:
        leader = await members.leader()
        assert leader is not None
        for other in members.members:
            members.wires.cut.add((leader, other))
        async with asyncio.timeout(20):
            while await members.leader() in (leader, None):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
        members.mend()
        await members.ready()


def test_the_command_writes_a_report(tmp_path, capsys):
    assert main(["--minutes", "0.03", "--members", "1", "--folder", str(tmp_path / "run")]) == 0
    assert "every promise kept in 1 rounds" in capsys.readouterr().out
    assert "Robustness of 1 members" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.skipif(importlib.util.find_spec("raftos") is None, reason="raftos is not installed (docs/raftos.md)")
async def test_raftos_runs_the_same_round(tmp_path):
    """What it breaks depends on the moment (docs/raftos.md); that it can be tormented and judged at all does not."""
    async with Members(tmp_path / "members", size=3, engine="raftos", random=Random(1)) as members:
        shape = Shape(faults=WITHOUT_WIRES, for_s=4.0, clients=1, readers=2, holders=0, watchers=1)
        each = await run_round(members, 1, 1, shape)
    assert each.judgement.acknowledged > 0
