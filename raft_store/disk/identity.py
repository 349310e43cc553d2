"""Whose data a directory holds: another member's, or another cluster's, must not be taken for ours.

The file also keeps what the log cannot say yet (who founded the group, or whom a member that joins may speak to) and
what it may never say (that the group has removed this member).
"""

from collections.abc import Mapping

import msgspec

from raft_store.disk.directory import Directory, DiskError
from raft_store.engine import MemberId, Removed

IDENTITY = "identity.json"

Urls = Mapping[MemberId, tuple[str, ...]]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """One member of one cluster."""

    cluster: str
    member: MemberId
    name: str = ""
    founders: Urls | None = None  # with whom the log begins; none: it joined; None: written before groups could change
    contacts: Urls = {}  # of a member that joined: whom it may speak to until the log says
    removed: bool = False  # by the group, for ever


def load_identity(directory: Directory) -> Identity | None:
    """Return whose data it is, None if nobody's yet; raises DiskError."""
    if IDENTITY not in directory.names():
        return None
    try:
        return msgspec.json.decode(directory.read(IDENTITY), type=Identity)
    except msgspec.MsgspecError as exc:
        raise DiskError(f"{IDENTITY}: cannot be read: {exc}") from exc


def save_identity(directory: Directory, identity: Identity) -> None:
    """Keep it, durably; raises DiskError."""
    directory.replace(IDENTITY, msgspec.json.encode(identity))


def check_identity(found: Identity, *, cluster: str, member: MemberId, name: str) -> None:
    """Raise DiskError unless the data is ours, Removed if it is of no use any more.

    Whoever has a name is known by it, others by their id: one that joined cannot know its own beforehand.
    """
    same = found.name == name if found.name and name else found.member == member
    if found.cluster != cluster or not same:
        raise DiskError(
            f"the data directory belongs to member {found.member:x} {found.name} of cluster {found.cluster!r}, "
            f"not to member {member:x} {name} of {cluster!r}"
        )
    if found.removed:
        raise Removed(
            f"member {found.member:x} was removed from cluster {cluster!r}, and its id never comes back. To let this "
            "machine take part again, remove its data directory, add it as a new member (etcdctl member add), and "
            'start it with initial_cluster_state = "existing"'
        )
