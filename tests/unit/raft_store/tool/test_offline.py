"""The tools that need no running member: they tell what is there, and what is wrong with it, and change nothing."""

import pytest

from raft_store.disk.directory import DirectoryInUse, DiskError, OsDirectory
from raft_store.disk.identity import load_identity
from raft_store.disk.saved import Seal
from raft_store.disk.snapshot import Framer, NotASnapshot
from raft_store.disk.storage import Storage
from raft_store.engine import Entry, Index, MemberId, Term
from raft_store.machine import Machine, encode
from raft_store.mvcc.lease import LeaseClock
from raft_store.mvcc.model import Revision
from raft_store.mvcc.requests import Compact, DeleteRange, LeaseGrant, Publish, Put, Range
from raft_store.mvcc.txn import read
from raft_store.raft.membership import encode as encode_group
from raft_store.raft.membership import founded
from raft_store.raft.messages import HardState, Save, SnapshotMark
from raft_store.tool import offline, snapshots
from raft_store.tool.__main__ import main

URLS = {"a": "http://10.0.0.1:2380", "b": "http://10.0.0.2:2380"}
NAME = bytes(8) + b"\x01" + bytes(7)  # what stands before a proposal: session, number


def entries(*commands, first=1, term=1):
    return [Entry(Index(first + i), Term(term), NAME + encode(c)) for i, c in enumerate(commands)]


def machine_with(*commands):
    machine = Machine(LeaseClock(lambda: 0.0))
    machine.apply([Entry(Index(i), Term(1), encode(command)) for i, command in enumerate(commands, 1)])
    return machine


@pytest.fixture
def data(tmp_path):
    """A directory with a log of two terms."""
    path = tmp_path / "data"
    directory = OsDirectory(path)
    storage = Storage(directory)
    storage.recover()
    group = Entry(Index(1), Term(1), encode_group(founded({MemberId(10): ("http://x",)})), reconfigures=True)
    storage.save(Save(HardState(Term(1), MemberId(10)), [group], None))
    storage.save(Save(HardState(Term(1), MemberId(10)), entries(Put(b"k", b"v" * 100), first=2), None))
    storage.save(Save(HardState(Term(2)), [Entry(Index(3), Term(2), b"")], None))
    storage.close()
    directory.close()
    return path


def files(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_sound_directory_is_called_sound_and_left_alone(data, capsys):
    before = files(data)
    assert main(["check", str(data)]) == 0
    said = capsys.readouterr().out
    assert "entries 1 to 3 after the snapshot, term 2" in said
    assert "WRONG" not in said
    assert files(data) == before


def test_a_dump_says_every_entry(data, capsys):
    assert main(["dump", str(data)]) == 0
    said = capsys.readouterr().out
    assert "members: voters a" in said
    assert 'Put key="k" value="' in said
    assert "(100 bytes)" in said
    assert "a leader begins its term" in said
    assert "term 1 vote a" in said


def test_damage_is_told_with_its_place(data, capsys):
    (segment,) = data.glob("*.wal")
    content = bytearray(segment.read_bytes())
    place = content.rfind(b"TREC", 0, content.rfind(b"TREC"))
    content[place + 40] ^= 1
    segment.write_bytes(content)
    assert main(["check", str(data)]) == 1
    assert f"{segment.name}: record 3 at byte {place} is damaged" in capsys.readouterr().out


def test_a_torn_tail_is_told_and_is_no_damage(data, capsys):
    (segment,) = data.glob("*.wal")
    content = bytearray(segment.read_bytes())
    end = len(content.rstrip(b"\0"))
    content[end - 10 :] = bytes(len(content) - end + 10)
    segment.write_bytes(content)
    assert main(["check", str(data)]) == 0
    assert "a torn tail" in capsys.readouterr().out
    assert main(["dump", str(data)]) == 0
    assert "torn tail, to be cut off" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("save", "complaint"),
    [
        (Save(HardState(Term(1)), [], None), "term 1 comes after 2"),
        (Save(HardState(Term(2)), [Entry(Index(4), Term(1), b"")], None), "entry 4 of term 1 follows one of term 2"),
        (Save(HardState(Term(2)), [Entry(Index(4), Term(3), b"")], None), "the last entry is of term 3"),
        (Save(HardState(Term(2)), [Entry(Index(4), Term(2), NAME + b"?")], None), "entry 4 cannot be read"),
        (Save(HardState(Term(2)), [Entry(Index(4), Term(2), b"few")], None), "too few"),
        (Save(HardState(Term(2)), [Entry(Index(9), Term(2), b"")], None), "begins with entry 9"),
    ],
    ids=["term falls", "entries' terms fall", "unknown term", "no command", "no name", "gap"],
)
def test_what_checksums_cannot_tell_is_found(data, save, complaint, capsys):
    directory = OsDirectory(data)
    storage = Storage(directory)
    storage.recover()
    storage.save(save)
    storage.close()
    directory.close()
    assert main(["check", str(data)]) == 1
    assert complaint in capsys.readouterr().out


def test_a_running_members_directory_is_not_touched(data):
    directory = OsDirectory(data)
    with pytest.raises(DirectoryInUse):
        offline.open_directory(data)
    directory.close()


def test_nothing_is_made_where_nothing_is(tmp_path, capsys):
    assert main(["check", str(tmp_path / "no")]) == 1
    assert "there is no data directory" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def saved(machine, path):
    framer, seal = Framer(), Seal()
    frames = [framer.head(SnapshotMark(Index(9), Term(3)), cluster_id=5, taken_s=1e9)]
    frames += [framer.chunk(chunk) for chunk in machine.snapshot() if chunk]
    path.write_bytes(b"".join(seal.add(frame) for frame in (*frames, framer.end())) + seal.end())
    return path


COMMANDS = [
    LeaseGrant(7, 60),
    Put(b"a", b"1"),
    Put(b"a", b"2", 7),
    Put(b"b", b"1"),
    DeleteRange(b"b"),
    Compact(Revision(3)),
    Publish(1, "old", ["http://old"]),
]


def test_status_says_what_is_in_a_snapshot(tmp_path):
    facts = snapshots.status(saved(machine_with(*COMMANDS), tmp_path / "s"))
    assert (facts.revision, facts.compact_revision, facts.total_key, facts.leases) == (5, 3, 1, 1)
    assert (facts.index, facts.term, facts.cluster_id, facts.taken_s) == (9, 3, 5, 1e9)


def test_a_restored_directory_is_a_member_of_a_new_cluster(tmp_path, capsys):
    old = machine_with(*COMMANDS)
    file = saved(old, tmp_path / "s")
    states = []
    for name in URLS:
        data_dir = tmp_path / name
        pairs = ",".join(f"{member}={url}" for member, url in URLS.items())
        arguments = ["--data-dir", str(data_dir), "--name", name, "--initial-cluster", pairs, "--cluster", "new"]
        assert main(["snapshot", "restore", str(file), *arguments]) == 0
        assert main(["check", str(data_dir)]) == 0
        directory = OsDirectory(data_dir)
        identity = load_identity(directory)
        assert identity is not None
        assert (identity.cluster, identity.name, len(identity.founders or ())) == ("new", name, 2)
        past = Storage(directory).recover()
        assert past.snapshot is not None
        assert past.snapshot.configuration.voters == frozenset(identity.founders or ())
        machine = Machine(LeaseClock(lambda: 0.0))
        machine.restore(Storage(directory).read_snapshot(past.snapshot))
        directory.close()
        assert machine.members == {}
        assert read(machine.store, Range(b"a", b"\0")) == read(old.store, Range(b"a", b"\0"))
        assert machine.store.compact_revision == 3
        states.append((past.snapshot.index, past.snapshot.term, past.hard_state))
    assert len(set(states)) == 1
    assert not list(tmp_path.glob("*.restoring"))
    assert "begins at revision 5 with 1 keys" in capsys.readouterr().out


def test_nothing_is_restored_over_data_or_from_damage(tmp_path, data):
    file = saved(machine_with(*COMMANDS), tmp_path / "s")
    before = files(data)
    with pytest.raises(DiskError, match="not empty"):
        snapshots.restore(file, data, name="a", members=URLS, cluster="new")
    assert files(data) == before
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(NotASnapshot, match="damaged at byte"):
        snapshots.restore(file, tmp_path / "new", name="a", members=URLS, cluster="new")
    assert not (tmp_path / "new").exists()


def test_a_real_etcds_snapshot_is_told_apart(tmp_path):
    file = tmp_path / "bolt"
    file.write_bytes(bytes(16) + bytes.fromhex("edda0ced") + bytes(4096))
    with pytest.raises(NotASnapshot, match="real etcd"):
        snapshots.status(file)
