"""Each promise of a robustness run, broken on purpose in records that are otherwise in order."""

import math

import msgspec
import pytest

from deploy.experiments.linearizability import Found, Get, Operation, Put, Request, Response
from deploy.experiments.robustness.checks import judge
from deploy.experiments.robustness.clients import Batch, Change, Gap, Hold, Progress, Records


def change(key, value, version, revision, prev=0):
    return Change(key, value, version, revision, prev)


A2 = change("a", "1", 1, 2)
B2 = change("b", "2", 1, 2)
A3 = change("a", "3", 2, 3, prev=2)
A4 = change("a", "", 0, 4, prev=3)
L5 = change("r/lease/1", "x", 1, 5)
L6 = change("r/lease/1", "", 0, 6, prev=5)
WHOLE = (Batch(1.0, 3, (A2, B2, A3)), Progress(3), Batch(2.0, 4, (A4,)), Batch(3.0, 5, (L5,)), Batch(9.0, 6, (L6,)))


def put(key, value, revision, at):
    return Operation("c", at, at + 0.1, Request((Put(key, value),)), Response(revision, True))


def records():
    return Records(
        operations=[
            Operation("c", 0.5, 0.6, Request((Put("a", "1"), Put("b", "2"))), Response(2, True)),
            put("a", "3", 3, 0.7),
            Operation("d", 0.8, math.inf, Request((Put("b", "never"),)), None),
        ],
        watches=[list(WHOLE), [Batch(1.0, 2, (A2, B2)), Batch(1.1, 5, (A3, A4, L5)), Batch(9.0, 6, (L6,))]],
        holds=[Hold("r/lease/1", until_s=8.0)],
    )


def faults(given, final=None):
    judgement = judge(
        given,
        final={"b": "2"} if final is None else final,
        final_revision=6,
        start_revision=2,
        now=lambda: 0.0,
        limit_s=1.0,
    )
    assert judgement.decided
    return judgement.faults


def test_what_is_in_order_is_accepted():
    assert faults(records()) == ()


def test_a_compacted_gap_is_no_loss():
    given = records()
    given.watches.append([Batch(1.0, 2, (A2, B2)), Gap(4), Batch(2.0, 4, (msgspec.structs.replace(A4, prev=0),))])
    assert faults(given) == ()


BROKEN_WATCHES = {
    "out of order": ([Batch(1.0, 4, (A2, B2, A4, A3))], "out of order"),
    "repeated": ([Batch(1.0, 3, (A2, B2, A3)), Batch(1.1, 4, (A3, A4))], "again"),
    "before its start": ([Batch(1.0, 4, (change("a", "0", 1, 1), A2, B2))], "before its time"),
    "a gap": ([Batch(1.0, 2, (A2, B2)), Batch(1.1, 4, (A4,))], "missing"),
    "half a revision": ([Batch(1.0, 2, (A2,)), Batch(1.0, 3, (A3,))], "a part of revision 2"),
    "a bookmark that lies": ([Batch(1.0, 2, (A2, B2)), Progress(3)], "without [3]"),
    "a header behind its events": ([Batch(1.0, 2, (A2, B2, A3))], "under a header of 2"),
    "a compaction that was none": ([Batch(1.0, 3, (A2, B2, A3)), Gap(3)], "wanted 4"),
    "another value": ([Batch(1.0, 2, (A2, change("b", "other", 1, 2)))], "different events"),
    "a wrong prev_kv": ([Batch(1.0, 3, (A2, B2, msgspec.structs.replace(A3, prev=1)))], "replaced 1"),
}


@pytest.mark.parametrize("name", BROKEN_WATCHES)
def test_a_broken_watch_is_noticed(name):
    log, says = BROKEN_WATCHES[name]
    given = records()
    given.watches = [log] if name == "a wrong prev_kv" else [*given.watches, log]
    assert says in "\n".join(faults(given))


def test_a_prev_kv_of_a_key_that_was_gone_is_noticed():
    given = records()
    back = change("a", "9", 1, 7, prev=3)
    for log in given.watches:
        log.append(Batch(9.1, 7, (back,)))
    assert "the key was gone" in "\n".join(faults(given))


def test_an_acknowledged_write_that_is_gone_is_noticed():
    given = records()
    given.operations.append(put("c", "gone", 5, 2.0))
    assert "no watcher heard of it" in "\n".join(faults(given))


def test_an_end_that_is_not_the_sum_of_the_events_is_noticed():
    assert "not the sum of the events" in "\n".join(faults(records(), final={}))


def test_a_stale_read_is_noticed():
    given = records()
    stale = Operation("e", 5.0, 5.1, Request((Get("a"),)), Response(2, True, (Found("1", 1, 2),)))
    given.operations.append(stale)
    assert "not linearizable" in "\n".join(faults(given))


def test_a_lease_that_ends_early_is_noticed():
    given = records()
    given.holds[0].until_s = 20.0
    assert "before its lease could end" in "\n".join(faults(given))


def test_a_lease_that_was_ended_by_its_holder_is_no_fault():
    given = records()
    given.holds[0].until_s, given.holds[0].revoked_s = 20.0, 8.5
    assert faults(given) == ()


def test_a_lease_that_never_ends_is_noticed():
    assert "still there" in "\n".join(faults(records(), final={"b": "2", "r/lease/1": "x"}))
