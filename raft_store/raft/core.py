"""One member's Raft: events in, a ``Ready`` out.

Theory of operation
-------------------
A driver hands every event to the core (``tick``, ``step``, ``append``, ``read``, ``change``) and then asks ``ready``
what to do, until it answers None. The core never waits: while the driver's disk works on one ``Save``, events go on
being taken in, and all that they leave unsaved becomes the next ``Save`` (group commit). There is never more than one
under way.

What may leave before the disk is done, and what may not (thesis 3.8 and 10.2.1):

- A leader's appends leave at once, beside its own sync. It counts itself towards a commit only once it is synced.
- Votes, and answers to appends, promise something that has to survive our crash. They are held (``_promise``) until
  everything that was unsaved when they were made is on disk. A candidate's vote for itself is such a promise too.
- Messages that promise nothing (pre-votes, forwards, questions, heartbeat answers within a saved term) leave at once.

Time is a tick. An election begins with a pre-vote (thesis 9.6): a member that is merely cut off never disturbs the
others with a higher term. A leader that has not heard from a majority for an election time-out steps down (6.2), and
whoever heard from a leader within that time ignores candidates (4.2.3); only the leader's own wish overrides that.

The story is told in chapters, each a class on the one before: ``state`` (what a member knows, sends and promises),
``elections``, ``following``, ``leading``, ``changing`` (its group); ``membership`` says when a change takes effect.

Sources: D. Ongaro, "Consensus: Bridging Theory and Practice", 2014 ("thesis").
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raft_store.engine import Entry, Index, MemberId
from raft_store.raft import messages as m
from raft_store.raft.changing import Changing
from raft_store.raft.elections import Elections
from raft_store.raft.following import Following
from raft_store.raft.log import Log
from raft_store.raft.messages import NOBODY
from raft_store.raft.progress import Progress
from raft_store.raft.state import Chance, CoreConfig, Role

__all__ = ["Chance", "Core", "CoreConfig", "Role"]


class Core(Elections, Following, Changing):
    """Consensus of one member; ``random`` spreads election time-outs, ``logger`` tells what an operator would."""

    def __init__(
        self, config: CoreConfig, *, hard_state: m.HardState, log: Log, random: Chance, logger: logging.Logger
    ) -> None:
        super().__init__(config, hard_state=hard_state, log=log, random=random, logger=logger)
        self._handlers: dict[type[m.Message], Callable[[Any], None]] = {
            m.VoteRequest: self._on_vote_request,
            m.VoteReply: self._on_vote_reply,
            m.Append: self._on_append,
            m.AppendReply: self._on_append_reply,
            m.Heartbeat: self._on_heartbeat,
            m.HeartbeatReply: self._on_heartbeat_reply,
            m.Commit: self._on_commit,
            m.InstallSnapshot: self._on_install_snapshot,
            m.TimeoutNow: self._on_timeout_now,
            m.ReadRequest: self._on_read_request,
            m.ReadReply: self._on_read_reply,
        }

    # -- events ------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let one unit of time pass."""
        self._since_leader += 1
        self._deaf_ticks -= 1
        self.patience.tick()
        if self.role is Role.LEADER:
            self._tick_leader()
        else:
            self._tick_without_lead()

    def pass_ticks(self, count: int) -> None:
        """Let ``count`` units of time pass, of which none, as ``quiet_ticks`` told, has consequences."""
        if self.role is Role.FOLLOWER and self._since_leader + count < self.config.election_ticks:
            self._since_leader += count
            self._deaf_ticks -= count
            self.patience.tick(count)
            return
        for _ in range(count):
            self.tick()

    def excuse(self, ticks: int) -> None:
        """We ourselves stood still for so many ticks: what we did not hear meanwhile proves nothing.

        A machine that stalls takes all its members along. So a leader has as many ticks again to be heard, but no more
        than to its next heartbeat: a member that is always late must still notice that its leader is gone.
        """
        if self.role is Role.FOLLOWER:
            excused = min(ticks, self._excuses, self._since_leader)
            self._excuses -= excused
            self._since_leader -= excused

    @property
    def quiet_ticks(self) -> int:
        """Return how many ticks, 1 at least, may pass before what they do is seen by anybody, if nothing else happens.

        Only the last of them may send heartbeats, and judge followers by their silence; a leader's silence is judged by
        a tick that is the only one.
        """
        if self.role is Role.LEADER:
            return self._quiet_ticks_of_leader()
        if self.role is Role.FOLLOWER and self.configuration.electorate != {self.member}:
            return max(1, self._campaign_ticks - self._since_leader - 1)
        return 1

    def append(self, proposals: Sequence[bytes]) -> None:
        """As a leader that ``may_append``, put proposals into the log, in order."""
        index, term = self.log.last_index, self.term
        self.log.append([Entry(Index(index + i), term, data) for i, data in enumerate(proposals, 1)])
        size_bytes = sum(map(len, proposals))
        self._backlog.append((self.log.last_index, size_bytes))
        self._backlog_bytes += size_bytes

    def step(self, message: m.AnyMessage) -> None:
        """Take a message from another member, whatever its age."""
        if self.observe(message):
            self._handlers[type(message)](message)

    def saved(self, save: m.Save) -> None:
        """The disk has synced ``save``."""
        assert save is self._saving, "saves end in the order in which they began"
        self._saving = None
        self._saved_state = save.hard_state
        if save.entries:
            self.log.mark_saved(save.entries[-1].index)
        if save.snapshot is not None:
            self._restore = save.snapshot
        released, self._released = self._released, []
        if released:
            self._release(released)
        if self.role is Role.LEADER and self.log.saved > self.log.committed:
            self._advance_by_ourselves()

    def compact(self, snapshot: m.SnapshotMark, *, keep: int, keep_bytes: int = 1 << 60) -> None:
        """A snapshot of our own is on disk; forget entries that it holds.

        keep: the last ones stay, for slow followers, as long as they have no more than ``keep_bytes``.
        """
        if snapshot.index > self.snapshot.index:
            self.snapshot = snapshot
            self.log.compact(self.log.behind(snapshot.index, count=keep, size_bytes=keep_bytes))

    def snapshot_failed(self, to: MemberId) -> None:
        """A snapshot that we asked to be sent did not arrive."""
        if (progress := self._progress.get(to)) is not None:
            progress.give_up_snapshot()

    def take_messages(self) -> Sequence[m.AnyMessage]:
        """Return what may leave already, once: ``ready`` would return it before anything else.

        For a driver whose disk was done at once: what the save held back is waited for elsewhere.
        """
        messages, self._outbox = self._outbox, []
        return messages

    # -- what to do --------------------------------------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether a save that has just ended made anything to do: what it held back, unless that was taken already, or
        what it lets be applied, or be saved: who needs no vote but its own leads from here on.
        """
        log = self.log
        return bool(self._outbox) or log.has_committed or log.has_unsaved or self._restore is not None

    def ready(self) -> m.Ready | None:
        """Return what is to be done now; None: nothing until the next event."""
        # Called after every event, and most events want one thing at most: what cannot be wanted is not asked for.
        if self.role is Role.LEADER:
            if not self.agreed.sealed:
                self._go_on_with_change()
            if self._reads.waiting:
                self._begin_read_round()
            self._replicate()
        save = self._begin_save() if self._saving is None else None
        restore, self._restore = self._restore, None
        if self._saving is not None and self._saving.snapshot is not None:
            restore = None  # a newer one is about to take its place, and its file's
        committed: Sequence[Entry] = ()
        others_wait = self.role is Role.FOLLOWER and self._outbox
        if save is None and self.log.has_committed and self._may_apply and not others_wait:
            # Not beside a save, nor beside a follower's answer: what it promises leaves first, and the machine takes
            # its time.
            limits = self.config
            committed = self.log.take_committed(max_entries=limits.max_apply_entries, max_bytes=limits.max_apply_bytes)
        if not (self._outbox or save or restore or committed or self._answers):
            return None
        ready = m.Ready(self._outbox, save, restore, committed, self._answers)
        self._outbox, self._answers = [], []
        return ready

    @property
    def _may_apply(self) -> bool:
        """Whether the machine may be given entries: no snapshot stands between it and them."""
        saving = self._saving
        return not self.holds_back and self._incoming is None and (saving is None or saving.snapshot is None)

    @property
    def may_append(self) -> bool:
        """Whether ``append`` would: we lead, are not about to hand over, and the group keeps up."""
        if self.role is not Role.LEADER or self.transferee != NOBODY:
            return False
        limits, backlog = self.config, self.log.last_index - self.log.committed
        return backlog < limits.max_uncommitted and self._backlog_bytes < limits.max_uncommitted_bytes

    def progress(self) -> Mapping[MemberId, Progress]:
        """Return what we know of those who follow us; empty unless we lead. For looking, not for changing."""
        return self._progress

    def _begin_save(self) -> m.Save | None:
        """Return what to give to the disk, which is free; without anything, promises need not wait for it."""
        state, log = self._saved_state, self.log
        if self.term != state.term or self.vote != state.vote:
            state = m.HardState(self.term, self.vote)
        released, self._held = self._held, []
        if state is self._saved_state and self._incoming is None and not log.has_unsaved:
            if released:
                self._release(released)
            return None
        self._released = released
        self._saving = m.Save(state, log.begin_save(), self._incoming)
        self._incoming = None
        return self._saving

    def _release(self, messages: Sequence[m.AnyMessage]) -> None:
        for message in messages:
            if message.to == self.member:
                self.step(message)
            else:
                self._outbox.append(message)

    # -- reads -------------------------------------------------------------------------------------------------------

    def _on_read_reply(self, reply: m.ReadReply) -> None:
        self._answers.append(m.ReadState(reply.session, reply.number, reply.index))
