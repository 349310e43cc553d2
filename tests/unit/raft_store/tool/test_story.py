"""The diagram shows what the cores did: the same story for a seed, with nothing in it that Raft does not do."""

import re

import pytest

from raft_store.tool.__main__ import main
from raft_store.tool.sequence import Aside, Became, Said, draw
from raft_store.tool.story import Story
from raft_store.tool.watching import changes
from trireme_pb.etcdserverpb import rpc_pb2 as pb


def test_a_seed_tells_one_story():
    assert Story(5).play() == Story(5).play()
    assert Story(5).play() != Story(6).play()


@pytest.mark.parametrize("seed", range(20))
def test_a_story_is_one_of_rafts(seed):
    """One leader a term, led by whoever campaigned; every write is applied everywhere that lives, in order."""
    scenes = Story(seed).play()
    leaders = [re.findall(r"LEADS in term (\d+)", one.text) for one in scenes if isinstance(one, Became)]
    terms = [int(term) for found in leaders for term in found]
    assert len(set(terms)) == len(terms) >= 2
    applied = {place: [] for place in range(3)}
    for one in scenes:
        if isinstance(one, Became) and one.text.startswith("applies"):
            applied[one.where].append(one.text.split(": ")[1])
    survivors = [values for values in applied.values() if values == ["x=1", "x=2"]]
    assert len(survivors) >= 2  # the first leader applies x=1 again when it is back
    dead = {one.where for one in scenes if isinstance(one, Became) and one.text == "dies"}
    assert len(dead) == 1
    lost = [one for one in scenes if isinstance(one, Said) and one.lost]
    assert {one.to for one in lost} == dead


def test_a_diagram():
    scenes = [
        Became(0.5, 0, "campaigns"),
        Said(0.501, 0, 1, "vote?"),
        Said(0.501, 0, 2, "vote?"),
        Said(0.502, 2, 0, "yes"),
        Aside("b dies"),
        Became(0.6, 1, "dies", up=False),
        Said(0.7, 0, 1, "a text that is far too long for the room", lost=True),
    ]
    assert "\n".join(draw(["a", "b", "c"], scenes)) == (
        """\
              a                              b                              c
              │                              │                              │
  0.500 s     ◆ campaigns                    │                              │
  0.501 s     ├── vote? ────────────────────▶│                              │
              ├── vote? ─────────────────────┼─────────────────────────────▶│
  0.502 s     │◀─────────────────────────────┼──────────────────────── yes ─┤
              │                              │                              │
          ── b dies ───────────────────────────────────────────────────────────────────────
  0.600 s     │                              ✗ dies                         │
  0.700 s     ├── a text that is far too l… ✗·                              │
              │                              ·                              │"""
    )


def status(*, member, leader, term=1, applied=5):
    header = pb.ResponseHeader(member_id=member, revision=9)
    return pb.StatusResponse(header=header, leader=leader, raftTerm=term, raftAppliedIndex=applied)


def test_a_live_groups_changes():
    def told(before, after, **options):
        return [one.text for one in changes(0, before, after, at_s=1.0, names={"2": "two"}, **options)]

    follows, leads = status(member=1, leader=2), status(member=1, leader=1, term=2)
    assert told(None, follows, first=True) == ["follows two in term 1"]
    assert told(follows, follows) == []
    assert told(follows, leads) == ["LEADS in term 2"]
    assert told(follows, None) == ["does not answer"]
    assert told(None, None) == []
    assert told(None, follows) == ["answers again", "follows two in term 1"]
    assert told(follows, status(member=1, leader=0, term=2)) == ["knows no leader, term 2"]
    assert told(follows, status(member=1, leader=2, applied=8)) == ["applied 6..8 (revision 9)"]


def test_the_command_prints_it(capsys):
    assert main(["raft", "--seed", "2"]) == 0
    said = capsys.readouterr().out
    assert "LEADS in term 1" in said
    assert "\x1b" not in said
