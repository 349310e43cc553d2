"""Who belongs to a group, and how a group passes from one set of members to the next.

Theory of operation
-------------------
A configuration is a value. Every change puts the whole next one into the log as an entry of its own, so that a log, or
a snapshot, says all there is to know about the group that wrote it.

*When it takes effect.* The thesis (4.1) lets a member use the newest configuration in its log, committed or not; etcd
lets it use the newest one that is committed. We do as etcd does, for a plain reason: whoever adds the second member to
a group of one starts that member afterwards, so the group of one has to commit the change alone. But a member's disk
does not hold its commit mark. So a leader makes no change before the last one is committed, and hence a configuration
with another one after it in a log *is* committed, also after a crash (``Log``). A member so uses its newest
configuration or the one before, never an older one, and that is safe: two configurations that may be in use at once are
neighbours, any majority of one overlaps any majority of the other, and who would campaign by an older one lacks an
entry that a majority of it holds.

*The seal.* Once a change is committed its leader appends the same configuration again. Whoever has that second entry
knows for ever that the first one is committed; once the seal is committed, a majority of the *new* group knows it.
Only then may a leader that is no voter any more leave, and a removed member end itself: before, somebody might still
need its vote, knowing of the old group only. For the same reason a voter of the group before may campaign as long as
it does not know the seal committed (4.2.2). Without the seal, the second of two members could not restart after the
first one was removed and thrown away: it would wait for a vote of the dead.

*How far one step may go.* Majorities overlap if one voter comes or goes (4.1). Any other step is made in two (4.3): a
joint configuration, in which both the old voters and the new ones have to agree by majorities of their own, and once
that is committed the new one alone, which the leader appends by itself (``auto_leave``).

*Learners* receive the log and confirm it, but never vote nor count (4.2.1). A voter that is to become a learner in
a joint step stays a voter of the old half until the step is over (``learners_next``).

*Removed ids* are remembered for ever: such a member may have slept through its removal, and has to be told.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from raft_store.engine import Change, ChangeKind, ChangeRefused, Index, MemberId, MemberRecord, Refusal

MAX_LEARNERS = 1  # as in etcd: each costs the leader as much as a voter does
IN_SYNC = 0.9  # of the leader's log: so much has a learner to have on disk before it may vote


class Configuration(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One set of members. ``outgoing`` is empty unless two sets of voters have to agree (joint consensus).

    learners are no voters; learners_next are voters of ``outgoing`` only; every member has its entry in ``urls``.
    """

    voters: frozenset[MemberId] = frozenset()
    outgoing: frozenset[MemberId] = frozenset()
    learners: frozenset[MemberId] = frozenset()
    learners_next: frozenset[MemberId] = frozenset()
    auto_leave: bool = False
    removed: frozenset[MemberId] = frozenset()
    urls: Mapping[MemberId, tuple[str, ...]] = {}

    @property
    def joint(self) -> bool:
        """Whether two sets of voters have to agree."""
        return bool(self.outgoing)

    @property
    def halves(self) -> tuple[frozenset[MemberId], ...]:
        """The sets of voters of each of which a majority is needed."""
        return (self.voters, self.outgoing) if self.outgoing else (self.voters,)

    @property
    def electorate(self) -> frozenset[MemberId]:
        """Whoever has a vote."""
        return self.voters | self.outgoing if self.outgoing else self.voters

    @property
    def members(self) -> frozenset[MemberId]:
        """Whoever receives the log."""
        return self.voters | self.outgoing | self.learners

    def records(self) -> list[MemberRecord]:
        """Return one record for each member, in the order of their ids."""
        electorate = self.electorate
        return [
            MemberRecord(member, self.urls.get(member, ()), member not in electorate) for member in sorted(self.members)
        ]


NO_MEMBERS = Configuration()  # of a member that has yet to hear from the group that it joins

_decoder = msgspec.msgpack.Decoder(Configuration)


def encode(configuration: Configuration) -> bytes:
    """Return the form in which a configuration stands in the log; the same bytes for equal ones."""
    return msgspec.msgpack.encode(
        [
            sorted(configuration.voters),
            sorted(configuration.outgoing),
            sorted(configuration.learners),
            sorted(configuration.learners_next),
            configuration.auto_leave,
            sorted(configuration.removed),
            dict(sorted(configuration.urls.items())),
        ]
    )


def decode(data: bytes) -> Configuration:
    """Return what ``encode`` encoded; raises msgspec.ValidationError, DecodeError."""
    return _decoder.decode(data)


def founded(urls: Mapping[MemberId, Sequence[str]]) -> Configuration:
    """Return the configuration with which a group begins; every founder has to state the same."""
    return Configuration(voters=frozenset(urls), urls={member: tuple(urls[member]) for member in urls})


def alone(configuration: Configuration, member: MemberId) -> Configuration:
    """Return what is left if all others are given up for lost: they can never come back (quorum-loss recovery)."""
    return Configuration(
        voters=frozenset({member}),
        removed=configuration.removed | (configuration.members - {member}),
        urls={member: configuration.urls.get(member, ())},
    )


def changed(configuration: Configuration, changes: Sequence[Change], *, joint: bool = False) -> Configuration:
    """Return the configuration after ``changes``, made in order: at once if one voter comes or goes, else a joint one.

    joint: take two steps even if one would do. Raises ChangeRefused.
    """
    if configuration.joint:
        raise ChangeRefused(Refusal.CHANGE_UNDER_WAY)
    wished = configuration
    for change in changes:
        wished = _APPLY[change.kind](wished, change)
    if not wished.voters:
        raise ChangeRefused(Refusal.LAST_VOTER)
    if len(wished.learners) > max(MAX_LEARNERS, len(configuration.learners)):
        raise ChangeRefused(Refusal.TOO_MANY_LEARNERS)
    if not joint and len(wished.voters ^ configuration.voters) <= 1:
        return wished
    return _enter(configuration, wished)


def left(configuration: Configuration) -> Configuration:
    """Return the configuration after a joint one: the new voters alone."""
    assert configuration.joint, configuration
    learners = configuration.learners | configuration.learners_next
    gone = configuration.outgoing - configuration.voters - learners
    return Configuration(
        voters=configuration.voters,
        learners=learners,
        removed=configuration.removed | gone,
        urls=_without(configuration.urls, gone),
    )


def check_started(configuration: Configuration, changes: Sequence[Change], started: AbstractSet[MemberId]) -> None:
    """Refuse what too few members have *started* for, though Raft would allow it (half of etcd's strict check).

    started: members that ever took part. Raises ChangeRefused.
    """
    voters = configuration.voters
    for change in changes:
        match change.kind:
            case ChangeKind.ADD:
                _demand_started(started & voters, len(voters) + 1)
            case ChangeKind.PROMOTE:
                _demand_started(started & voters | {change.member}, len(voters) + 1)
            case ChangeKind.REMOVE | ChangeKind.DEMOTE if change.member in voters:
                rest = voters - {change.member}
                if len(started & rest) < len(rest) // 2 + 1:
                    raise ChangeRefused(Refusal.TOO_FEW_STARTED)
            case _:
                pass


def check_active(configuration: Configuration, changes: Sequence[Change], active: AbstractSet[MemberId]) -> None:
    """Refuse what too few members *answer* for, though Raft would allow it (the other half of etcd's strict check).

    active: members that answer now. Raises ChangeRefused.
    """
    voters = configuration.voters
    for change in changes:
        match change.kind:
            case ChangeKind.ADD | ChangeKind.ADD_LEARNER:
                # The new member does not run yet: it counts, but does not answer.
                refused = len(voters) > 1 and len(active & voters) < (len(voters) + 1) // 2 + 1
            case ChangeKind.REMOVE | ChangeKind.DEMOTE if change.member in voters & active:
                # Whoever is down already takes nothing away.
                rest = voters - {change.member}
                refused = len(active & rest) < len(rest) // 2 + 1
            case _:
                refused = False
        if refused:
            raise ChangeRefused(Refusal.UNHEALTHY)


def in_sync(*, learner_matched: int, leader_matched: int) -> bool:
    """Return whether a learner with so much of the log on disk can vote without holding commits up."""
    return learner_matched >= IN_SYNC * leader_matched


class Step(msgspec.Struct, frozen=True):
    """A configuration and where in the log it stands; ``sealed``: it is the second entry of its change."""

    index: Index
    configuration: Configuration
    sealed: bool


class History:
    """The configurations along one log: the one at its base, and those that its entries bring, by rising index."""

    __slots__ = ("_steps",)

    def __init__(self, index: Index, configuration: Configuration, *, sealed: bool = False) -> None:
        # The founders need no seal. If nobody knows whether a snapshot's group was sealed, the next leader does it.
        self._steps = [Step(index, configuration, sealed=sealed or index == 0)]

    def add(self, index: Index, configuration: Configuration) -> None:
        """An entry brings ``configuration``."""
        last = self._steps[-1]
        assert index > last.index, (index, last)
        self._steps.append(Step(index, configuration, sealed=configuration == last.configuration))

    def cut(self, index: Index) -> None:
        """Forget what the entries from ``index`` on brought."""
        while self._steps[-1].index >= index:
            self._steps.pop()
        assert self._steps, "the base cannot be cut"

    def compact(self, to: Index) -> None:
        """Let the base move up to ``to``."""
        self._steps = [self.at(to), *(step for step in self._steps if step.index > to)]

    def at(self, index: Index) -> Step:
        """Return the newest step at or before ``index``, which must not be before the base."""
        newest = self._steps[-1]
        if newest.index <= index:  # nearly always, and asked at every step of the core
            return newest
        return next(step for step in reversed(self._steps) if step.index <= index)

    def before(self, index: Index) -> Configuration | None:
        """Return the newest *other* configuration before the one in use at ``index``; None if it is forgotten."""
        now = self.at(index).configuration
        earlier = (step.configuration for step in reversed(self._steps) if step.index < index)
        return next((configuration for configuration in earlier if configuration != now), None)

    @property
    def newest(self) -> Index:
        """Where the newest one stands, committed or not."""
        return self._steps[-1].index


def _add(configuration: Configuration, change: Change) -> Configuration:
    if change.member in configuration.removed:
        raise ChangeRefused(Refusal.MEMBER_REMOVED)
    if change.member in configuration.members:
        raise ChangeRefused(Refusal.MEMBER_EXISTS)
    place = "voters" if change.kind is ChangeKind.ADD else "learners"
    return msgspec.structs.replace(
        configuration,
        urls=_with_urls(configuration, change),
        **{place: getattr(configuration, place) | {change.member}},
    )


def _promote(configuration: Configuration, change: Change) -> Configuration:
    _demand_member(configuration, change)
    if change.member not in configuration.learners:
        raise ChangeRefused(Refusal.NOT_A_LEARNER)
    return msgspec.structs.replace(
        configuration,
        voters=configuration.voters | {change.member},
        learners=configuration.learners - {change.member},
    )


def _demote(configuration: Configuration, change: Change) -> Configuration:
    _demand_member(configuration, change)
    if change.member not in configuration.voters:
        raise ChangeRefused(Refusal.NOT_A_VOTER)
    return msgspec.structs.replace(
        configuration,
        voters=configuration.voters - {change.member},
        learners=configuration.learners | {change.member},
    )


def _remove(configuration: Configuration, change: Change) -> Configuration:
    _demand_member(configuration, change)
    return msgspec.structs.replace(
        configuration,
        voters=configuration.voters - {change.member},
        learners=configuration.learners - {change.member},
        removed=configuration.removed | {change.member},
        urls=_without(configuration.urls, {change.member}),
    )


def _move(configuration: Configuration, change: Change) -> Configuration:
    _demand_member(configuration, change)
    return msgspec.structs.replace(configuration, urls=_with_urls(configuration, change))


_APPLY = {
    ChangeKind.ADD: _add,
    ChangeKind.ADD_LEARNER: _add,
    ChangeKind.PROMOTE: _promote,
    ChangeKind.DEMOTE: _demote,
    ChangeKind.REMOVE: _remove,
    ChangeKind.MOVE: _move,
}


def _enter(before: Configuration, after: Configuration) -> Configuration:
    """Return the joint configuration between the two."""
    return Configuration(
        voters=after.voters,
        outgoing=before.voters,
        learners=after.learners - before.voters,
        learners_next=after.learners & before.voters,
        auto_leave=True,
        # Voters of the old half still take part, and are still dialled.
        removed=after.removed - before.voters,
        urls={**{member: before.urls.get(member, ()) for member in before.voters}, **after.urls},
    )


def _demand_member(configuration: Configuration, change: Change) -> None:
    if change.member not in configuration.members:
        raise ChangeRefused(Refusal.MEMBER_UNKNOWN)


def _demand_started(started: AbstractSet[MemberId], size: int) -> None:
    # A group of one that grows is the exception: it could never be restored otherwise.
    if len(started) < size // 2 + 1 and not (len(started) == 1 and size == 2):
        raise ChangeRefused(Refusal.TOO_FEW_STARTED)


def _with_urls(configuration: Configuration, change: Change) -> Mapping[MemberId, tuple[str, ...]]:
    others = _without(configuration.urls, {change.member})
    taken = {url for urls in others.values() for url in urls}
    if not taken.isdisjoint(change.peer_urls):
        raise ChangeRefused(Refusal.URL_TAKEN)
    return {**others, change.member: change.peer_urls}


def _without(urls: Mapping[MemberId, tuple[str, ...]], gone: AbstractSet[MemberId]) -> dict[MemberId, tuple[str, ...]]:
    return {member: where for member, where in urls.items() if member not in gone}
