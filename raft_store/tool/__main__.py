"""Look at a store, save and restore it: ``python -m raft_store.tool COMMAND``.

Where a store runs is said by etcdctl's own environment variables (ETCDCTL_ENDPOINTS, _CACERT, _CERT, _KEY) or by the
options of the same names. Exit status: 0; 1 if something is wrong with the store or its data; 2 for a wrong command.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import msgspec

from raft_store.disk.directory import DiskError
from raft_store.tool import live, offline, sequence, snapshots
from raft_store.tool.live import Access, StoreUnreachable
from raft_store.tool.snapshots import SnapshotFacts
from raft_store.tool.story import Story
from raft_store.tool.watching import watch

SOUND, WRONG = 0, 1
Command = Callable[[argparse.Namespace], int]
_Group: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no other name


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status."""
    arguments = _parser().parse_args(argv)
    command: Command = arguments.command
    try:
        return command(arguments)
    except BrokenPipeError:
        return SOUND  # whoever read has seen enough
    except (DiskError, StoreUnreachable, OSError, ValueError) as exc:
        print(f"error: {exc}", file=sys.stderr)  # noqa: T201 - for whoever typed the command
        return WRONG
    except KeyboardInterrupt:
        return SOUND


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trireme store",
        description="Look at a store, save and restore it. Without a lab: python -m raft_store.tool COMMAND.",
        epilog="In a lab, --name LAB and --on HOST come before COMMAND: trireme store -h.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(group: _Group, name: str, command: Command, text: str) -> argparse.ArgumentParser:
        added = group.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added

    for asking in (
        add(commands, "members", _members, "who belongs to the group"),
        add(commands, "status", _status, "role, term, log, revision, size and hash of every member"),
    ):
        _access(asking)
        _output(asking)
    snapshot = commands.add_parser("snapshot", help="save, inspect and restore the whole state")
    kinds = snapshot.add_subparsers(required=True, metavar="COMMAND")
    saving = add(kinds, "save", _save, "save a running store's state into a file")
    saving.add_argument("file", type=Path, metavar="FILE", help="where it goes")
    _access(saving)
    _output(saving)
    looking = add(kinds, "status", _snapshot_status, "what a saved snapshot holds; every byte of it is checked")
    looking.add_argument("file", type=Path, metavar="FILE", help="as saved")
    _output(looking)
    restoring = add(kinds, "restore", _restore, "make the data directory of a member of a new cluster from a snapshot")
    restoring.add_argument("file", type=Path, metavar="FILE", help="as saved")
    restoring.add_argument("--data-dir", type=Path, required=True, help="made anew; must not hold anything")
    restoring.add_argument("--name", required=True, help="of the member whose directory it is")
    restoring.add_argument("--initial-cluster", required=True, metavar="NAME=URL,...", help="every member's peer URL")
    restoring.add_argument("--cluster", required=True, help="name of the new cluster: as in the members' configuration")
    checking = add(commands, "check", _check, "look for damage in the data directory of a member that does not run")
    checking.add_argument("dir", type=Path, metavar="DIR", help="/var/lib/trireme/store on a lab's masters")
    dumping = add(commands, "dump", _dump, "print the log of a member that does not run in readable form")
    dumping.add_argument("dir", type=Path, metavar="DIR", help="/var/lib/trireme/store on a lab's masters")
    raft = add(commands, "raft", _raft, "draw an election, a write and a fail-over as a sequence diagram")
    raft.add_argument("--seed", type=int, default=1, metavar="NUMBER", help="another seed tells another story (1)")
    raft.add_argument("--live", action="store_true", help="watch a running store instead")
    raft.add_argument("--seconds", type=float, default=30.0, metavar="NUMBER", help="how long to watch live (30)")
    raft.add_argument("--no-colour", action="store_true", help="plain text on a terminal, too")
    _access(raft)
    return parser


def _access(parser: argparse.ArgumentParser) -> None:
    known = live.from_environment()
    endpoints = ",".join(known.endpoints)
    parser.add_argument("--endpoints", default=endpoints, metavar="HOST:PORT,...", help="instead of the lab's store")
    parser.add_argument("--cacert", default=known.ca, metavar="FILE", help="authority of its certificates")
    parser.add_argument("--cert", default=known.cert, metavar="FILE", help="client certificate for it")
    parser.add_argument("--key", default=known.key, metavar="FILE", help="key of that certificate")


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", default="text", choices=("text", "json"), help="how to print (text)")


def _reach(arguments: argparse.Namespace) -> Access:
    endpoints = tuple(endpoint for endpoint in arguments.endpoints.split(",") if endpoint)
    return Access(endpoints, ca=arguments.cacert, cert=arguments.cert, key=arguments.key)


# Running stores


def _members(arguments: argparse.Namespace) -> int:
    found = live.members(_reach(arguments))
    if arguments.output == "json":
        return _print_json(found)
    rows = [
        (
            one.id,
            one.name or "(never started)",
            ",".join(one.peer_urls),
            ",".join(one.client_urls),
            "learner" if one.learner else "voter",
        )
        for one in found
    ]
    _print_table(("ID", "NAME", "PEERS AT", "CLIENTS AT", "KIND"), rows)
    return SOUND


def _status(arguments: argparse.Namespace) -> int:
    access = _reach(arguments)
    endpoints = [url for one in live.members(access) for url in one.client_urls] or list(access.endpoints)
    found = live.states(access, endpoints)
    if arguments.output == "json":
        _print_json(found)
    else:
        rows = [
            (
                one.endpoint,
                one.id,
                one.role,
                str(one.term),
                f"{one.applied}/{one.index}",
                str(one.revision),
                f"{one.size_bytes / 1e6:.1f} MB",
                one.hash,
                one.problem,
            )
            for one in found
        ]
        heads = ("MEMBER AT", "ID", "ROLE", "TERM", "APPLIED/COMMITTED", "REVISION", "SIZE", "HASH", "")
        _print_table(heads, rows)
        if hashes := {one.hash for one in found if one.hash}:
            revision = max(one.hash_revision for one in found)
            verdict = "all agree" if len(hashes) == 1 else "THE MEMBERS DIFFER"
            _print(f"\nHashes are of revision {revision}: {verdict}.")
    sound = len({one.hash for one in found if one.hash}) <= 1 and not any(one.problem for one in found)
    return SOUND if sound else WRONG


def _save(arguments: argparse.Namespace) -> int:
    facts = live.save(_reach(arguments), arguments.file)
    if arguments.output == "json":
        return _print_json(facts)
    _print(f"{arguments.file}: revision {facts.revision}, {facts.total_key} keys, {facts.total_size} bytes, checked")
    return SOUND


# Files


def _snapshot_status(arguments: argparse.Namespace) -> int:
    facts = snapshots.status(arguments.file)
    if arguments.output == "json":
        return _print_json(facts)
    for name, value in _facts(facts):
        _print(f"{name:<18} {value}")
    return SOUND


def _facts(facts: SnapshotFacts) -> list[tuple[str, str]]:
    taken = datetime.fromtimestamp(facts.taken_s, UTC).isoformat(timespec="seconds") if facts.taken_s else "unknown"
    return [
        ("taken", taken),
        ("hash", facts.hash),
        ("revision", str(facts.revision)),
        ("compacted to", str(facts.compact_revision or "never")),
        ("keys", str(facts.total_key)),
        ("leases", str(facts.leases)),
        ("alarms", str(facts.alarms)),
        ("after entry", f"{facts.index} of term {facts.term}"),
        ("size", f"{facts.total_size} bytes"),
        ("cluster", f"{facts.cluster_id:x}"),
    ]


def _restore(arguments: argparse.Namespace) -> int:
    members = {}
    for pair in arguments.initial_cluster.split(","):
        name, equals, url = pair.partition("=")
        if not (name and equals and url):
            raise ValueError(f"--initial-cluster {pair!r}: write it as NAME=URL,NAME=URL")
        members[name] = url
    facts = snapshots.restore(
        arguments.file, arguments.data_dir, name=arguments.name, members=members, cluster=arguments.cluster
    )
    _print(
        f"{arguments.data_dir}: member {arguments.name} of the new cluster {arguments.cluster!r} "
        f"({facts.cluster_id:x}) begins at revision {facts.revision} with {facts.total_key} keys"
    )
    if len(members) > 1:
        _print("restore the same file for every other member before any of them starts")
    return SOUND


def _check(arguments: argparse.Namespace) -> int:
    directory = offline.open_directory(arguments.dir)
    try:
        findings = list(offline.check(directory))
    finally:
        directory.close()
    for finding in findings:
        _print(f"{'ok     ' if finding.sound else 'WRONG  '} {finding.text}")
    return SOUND if all(finding.sound for finding in findings) else WRONG


def _dump(arguments: argparse.Namespace) -> int:
    directory = offline.open_directory(arguments.dir)
    try:
        for line in offline.dump(directory):
            _print(line)
    finally:
        directory.close()
    return SOUND


# Raft


def _raft(arguments: argparse.Namespace) -> int:
    colour = sys.stdout.isatty() and not arguments.no_colour
    if arguments.live:
        names, scenes = watch(_reach(arguments), seconds=arguments.seconds, now=time.monotonic, sleep=time.sleep)
        lines: Iterable[str] = sequence.draw(names, scenes, colour=colour)
    else:
        story = Story(arguments.seed)
        lines = sequence.draw(story.names, story.play(), colour=colour)
    for line in lines:
        _print(line)
    return SOUND


# Printing


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command's answer


def _print_json(value: object) -> int:
    _print(msgspec.json.format(msgspec.json.encode(value)).decode())
    return SOUND


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[place]) for row in (heads, *rows)) for place in range(len(heads))]
    for row in (heads, *rows):
        _print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
