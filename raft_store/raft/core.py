"""One member's Raft: events in, a ``Ready`` out.

Theory of operation
-------------------
A driver hands every event to the core (``tick``, ``step``, ``append``, ``read``) and then asks ``ready`` what to do,
until it answers None. The core never waits: while the driver's disk works on one ``Save``, events go on being taken
in, and all that they leave unsaved becomes the next ``Save`` (group commit). There is never more than one under way.

What may leave before the disk is done, and what may not (thesis 3.8 and 10.2.1):

- A leader's appends leave at once, beside its own sync. It counts itself towards a commit only once it is synced.
- Votes, and answers to appends, promise something that has to survive our crash. They are held (``_promise``) until
  everything that was unsaved when they were made is on disk. A candidate's vote for itself is such a promise too.
- Messages that promise nothing (pre-votes, forwards, questions, heartbeat answers within a saved term) leave at once.

Time is a tick. An election begins with a pre-vote (thesis 9.6): a member that is merely cut off never disturbs the
others with a higher term. A leader that has not heard from a majority for an election time-out steps down (6.2), and
whoever heard from a leader within that time ignores candidates (4.2.3); only the leader's own wish overrides that.

Sources: D. Ongaro, "Consensus: Bridging Theory and Practice", 2014 ("thesis").
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

import msgspec

from raft_store.engine import Entry, Index, MemberId, Term
from raft_store.raft import messages as m
from raft_store.raft.log import Log
from raft_store.raft.messages import NOBODY
from raft_store.raft.progress import Progress, State
from raft_store.raft.quorum import Verdict, commit_index, majority, tally
from raft_store.raft.reads import Question, ReadRounds


class Role(Enum):
    """What a member is in its term."""

    FOLLOWER = "follower"
    PRECANDIDATE = "precandidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Chance(Protocol):
    """Where a core's randomness comes from: ``random.Random`` does."""

    def randrange(self, stop: int, /) -> int:
        """Return a number from 0 up to, but not including, ``stop``."""


class CoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One member's fixed facts; ticks are the driver's, whatever they last."""

    member: MemberId
    voters: frozenset[MemberId]
    heartbeat_ticks: int = 3
    election_ticks: int = 13
    max_append_bytes: int = 1 << 20  # of entries in one append; a larger entry travels alone
    max_uncommitted: int = 100_000  # entries; beyond, a leader takes no proposals until the group has caught up
    max_apply_entries: int = 256  # handed to the machine at once
    max_apply_bytes: int = 4 << 20
    snapshot_patience_ticks: int = 500  # a snapshot that did not arrive in this time is sent again


class Core:
    """Consensus of one member; ``random`` spreads election time-outs, ``logger`` tells what an operator would."""

    def __init__(
        self, config: CoreConfig, *, hard_state: m.HardState, log: Log, random: Chance, logger: logging.Logger
    ) -> None:
        assert config.member in config.voters, config
        assert 0 < config.heartbeat_ticks < config.election_ticks, config
        self.config = config
        self.member = config.member
        self.peers = tuple(sorted(config.voters - {config.member}))
        self.log = log
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.role = Role.FOLLOWER
        self.leader = NOBODY
        self.snapshot = log.base  # the newest one on our disk; never behind log.base
        self.transferee = NOBODY  # whom we hand leadership to
        self._random = random
        self._logger = logger
        self._saved_state = hard_state
        self._saving: m.Save | None = None
        self._incoming: m.Snapshot | None = None  # from the leader, not given to the disk yet
        self._restore: m.Snapshot | None = None  # on disk, not given to the machine yet
        self._outbox: list[m.AnyMessage] = []
        self._held: list[m.AnyMessage] = []  # leave after the next save
        self._released: list[m.AnyMessage] = []  # leave after the save under way
        self._answers: list[m.ReadState] = []
        self._votes: dict[MemberId, bool] = {}
        self._progress: dict[MemberId, Progress] = {}
        self._reads = ReadRounds()
        self._since_leader = 0  # ticks since we heard from it; as the leader: since the last quorum check
        self._since_heartbeat = 0
        self._patience = self._new_patience()
        self._forced = False  # our campaign is our old leader's wish
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
        if self.role is Role.LEADER:
            self._tick_leader()
        elif self._since_leader >= self._patience or not self.peers:
            self._campaign(pre=True)
        elif self.role is not Role.FOLLOWER and self._since_leader % self.config.heartbeat_ticks == 0:
            self._ask_for_votes()

    def append(self, proposals: Sequence[bytes]) -> bool:
        """As the leader, put proposals into the log, in order; return False, and do nothing, if we may not."""
        if not self.may_append:
            return False
        index, term = self.log.last_index, self.term
        self.log.append([Entry(Index(index + i), term, data) for i, data in enumerate(proposals, 1)])
        return True

    def read(self, session: int, number: int) -> None:
        """As the leader, ask ourselves a question; the answer comes in ``Ready.reads``, or never if we are deposed."""
        if self.role is Role.LEADER:
            self._reads.ask(Question(self.member, session, number))

    def transfer(self, to: MemberId) -> bool:
        """As the leader, begin to hand over to ``to``; given up after an election time-out (thesis 3.10)."""
        if self.role is not Role.LEADER or to not in self._progress:
            return False
        self._logger.info("handing over leadership member=%d to=%d term=%d", self.member, to, self.term)
        self.transferee = to
        self._since_leader = 0
        self._hand_over_if_caught_up(to)
        return True

    def step(self, message: m.AnyMessage) -> None:
        """Take a message from another member, whatever its age."""
        if self.observe(message):
            self._handlers[type(message)](message)

    def observe(self, message: m.AnyMessage) -> bool:
        """Catch up with a message's term, or answer it with ours; return whether it still counts."""
        if message.term > self.term:
            return self._learn_of_term(message)
        if message.term < self.term:
            self._answer_old_term(message)
            return False
        return True

    def saved(self, save: m.Save) -> None:
        """The disk has synced ``save``."""
        assert save is self._saving, "saves end in the order in which they began"
        self._saving = None
        self._saved_state = save.hard_state
        if save.entries:
            self.log.mark_saved(save.entries[-1].index)
        if save.snapshot is not None:
            self._restore = save.snapshot
        self._release(self._released)
        self._released = []
        if self.role is Role.LEADER:
            self._advance_commit()

    def compact(self, snapshot: m.SnapshotMark, *, keep: int) -> None:
        """A snapshot of our own is on disk; forget entries that it holds but the last ``keep``, for slow followers."""
        if snapshot.index > self.snapshot.index:
            self.snapshot = snapshot
            self.log.compact(Index(max(self.log.base.index, snapshot.index - keep)))

    def snapshot_failed(self, to: MemberId) -> None:
        """A snapshot that we asked to be sent did not arrive."""
        if (progress := self._progress.get(to)) is not None:
            progress.give_up_snapshot()

    # -- what to do --------------------------------------------------------------------------------------------------

    def ready(self) -> m.Ready | None:
        """Return what is to be done now; None: nothing until the next event."""
        if self.role is Role.LEADER:
            self._begin_read_round()
            self._replicate()
        save = self._begin_save()
        restore, self._restore = self._restore, None
        committed: Sequence[Entry] = ()
        if self._incoming is None and (self._saving is None or self._saving.snapshot is None):
            # A snapshot on its way to the disk stands between the machine and every later entry.
            limits = self.config
            committed = self.log.take_committed(max_entries=limits.max_apply_entries, max_bytes=limits.max_apply_bytes)
        if not (self._outbox or save or restore or committed or self._answers):
            return None
        ready = m.Ready(self._outbox, save, restore, committed, self._answers)
        self._outbox, self._answers = [], []
        return ready

    @property
    def may_append(self) -> bool:
        """Whether ``append`` would: we lead, are not about to hand over, and the group keeps up."""
        backlog = self.log.last_index - self.log.committed
        return self.role is Role.LEADER and self.transferee == NOBODY and backlog < self.config.max_uncommitted

    def progress(self) -> Mapping[MemberId, Progress]:
        """Return what we know of the followers; empty unless we lead. For looking, not for changing."""
        return self._progress

    def _begin_save(self) -> m.Save | None:
        if self._saving is not None:
            return None
        state = m.HardState(self.term, self.vote)
        self._released, self._held = self._held, []
        if state == self._saved_state and self._incoming is None and not self.log.has_unsaved:
            self._release(self._released)
            self._released = []
            return None
        self._saving = m.Save(state, self.log.begin_save(), self._incoming)
        self._incoming = None
        return self._saving

    def _release(self, messages: Sequence[m.AnyMessage]) -> None:
        for message in messages:
            if message.to == self.member:
                self.step(message)
            else:
                self._outbox.append(message)

    def _promise(self, message: m.AnyMessage) -> None:
        """Send a message that relies on what the disk may not have yet."""
        self._held.append(message)

    def _send(self, message: m.AnyMessage) -> None:
        self._outbox.append(message)

    # -- terms and roles ---------------------------------------------------------------------------------------------

    def _learn_of_term(self, message: m.AnyMessage) -> bool:
        """Take over a higher term where the message proves that it began; return whether the message counts."""
        match message:
            case m.VoteRequest(forced=False) if self._hears_leader():
                return False  # thesis 4.2.3: no candidate deposes a leader that works
            case m.VoteRequest(pre=True) | m.VoteReply(pre=True, granted=True):
                return True  # about a term that nobody has begun
            case m.Append() | m.Heartbeat() | m.Commit() | m.InstallSnapshot():
                self._become_follower(message.term, leader=message.sender)
            case _:
                self._become_follower(message.term, leader=NOBODY)
        return True

    def _answer_old_term(self, message: m.AnyMessage) -> None:
        """Tell whoever acts in a term that is over; otherwise it could go on for as long as it lives."""
        match message:
            case m.Append() | m.Heartbeat() | m.InstallSnapshot():
                self._promise(m.AppendReply(self.member, message.sender, self.term, rejected=True, index=Index(0)))
            case m.VoteRequest(pre=True):
                self._promise(m.VoteReply(self.member, message.sender, self.term, granted=False, pre=True))
            case _:
                pass

    def _hears_leader(self) -> bool:
        return self.leader != NOBODY and self._since_leader < self.config.election_ticks

    def _new_patience(self) -> int:
        """Return a time-out between one and two election time-outs, so that members rarely campaign at once (3.4)."""
        return self.config.election_ticks + self._random.randrange(self.config.election_ticks)

    def _become(self, role: Role, term: Term, leader: MemberId) -> None:
        if term != self.term:
            assert term > self.term, (term, self.term)
            self.term, self.vote = term, NOBODY
        self.role, self.leader = role, leader
        self.transferee = NOBODY
        self._since_leader = self._since_heartbeat = 0
        self._patience = self._new_patience()
        self._votes = {}
        self._progress = {}
        self._reads.clear()

    def _become_follower(self, term: Term, leader: MemberId) -> None:
        if self.role is Role.LEADER:
            self._logger.info("stepped down member=%d term=%d new_term=%d", self.member, self.term, term)
        if leader not in (NOBODY, self.leader):
            self._logger.info("follows member=%d leader=%d term=%d", self.member, leader, term)
        self._become(Role.FOLLOWER, term, leader)

    def _become_leader(self) -> None:
        self._logger.info("became leader member=%d term=%d last=%d", self.member, self.term, self.log.last_index)
        self._become(Role.LEADER, self.term, self.member)
        self._progress = {peer: Progress(Index(self.log.last_index + 1)) for peer in self.peers}
        # An entry of our own term has to be committed before any older one counts as committed (thesis 3.6.2).
        self.log.append([Entry(Index(self.log.last_index + 1), self.term, b"")])

    # -- elections ---------------------------------------------------------------------------------------------------

    def _campaign(self, *, pre: bool, forced: bool = False) -> None:
        self._logger.info("campaigns member=%d term=%d pre=%s forced=%s", self.member, self.term + 1, pre, forced)
        if pre:
            self._become(Role.PRECANDIDATE, self.term, NOBODY)
        else:
            self._become(Role.CANDIDATE, Term(self.term + 1), NOBODY)
            self.vote = self.member
        self._forced = forced
        self._ask_for_votes()
        own = m.VoteReply(self.member, self.member, self._asked_term, granted=True, pre=pre)
        if pre:
            self.step(own)
        else:
            self._promise(own)

    @property
    def _asked_term(self) -> Term:
        return Term(self.term + 1) if self.role is Role.PRECANDIDATE else self.term

    def _ask_for_votes(self) -> None:
        """Ask whoever has not answered; asked again in vain does no harm."""
        pre, asked_term = self.role is Role.PRECANDIDATE, self._asked_term
        for peer in self.peers:
            if peer in self._votes:
                continue
            request = m.VoteRequest(
                self.member,
                peer,
                asked_term,
                last_index=self.log.last_index,
                last_term=self.log.last_term,
                pre=pre,
                forced=self._forced,
            )
            # Asking for a vote in a term tells that we voted for ourselves in it.
            (self._send if pre else self._promise)(request)

    def _on_vote_request(self, request: m.VoteRequest) -> None:
        if request.pre and self._hears_leader():
            return
        free = self.vote == request.sender or (self.vote == NOBODY and self.leader == NOBODY)
        free = free or (request.pre and request.term > self.term)
        granted = free and self.log.up_to_date(last_term=request.last_term, last_index=request.last_index)
        if granted and not request.pre:
            self.vote = request.sender
            self._since_leader = 0
        self._promise(
            m.VoteReply(
                self.member,
                request.sender,
                request.term if granted else self.term,
                granted=granted,
                pre=request.pre,
            )
        )

    def _on_vote_reply(self, reply: m.VoteReply) -> None:
        if self.role is Role.PRECANDIDATE:
            # A grant counts for the term we asked about only; a refusal carries the voter's own.
            if not reply.pre or (reply.granted and reply.term != self.term + 1):
                return
        elif self.role is not Role.CANDIDATE or reply.pre:
            return
        self._votes[reply.sender] = reply.granted
        match tally(self._votes, self.config.voters):
            case Verdict.WON if self.role is Role.PRECANDIDATE:
                self._campaign(pre=False)
            case Verdict.WON:
                self._become_leader()
            case Verdict.LOST:
                self._become_follower(self.term, NOBODY)
            case Verdict.OPEN:
                pass

    def _on_timeout_now(self, message: m.TimeoutNow) -> None:
        if self.role is Role.FOLLOWER and message.sender == self.leader:
            self._campaign(pre=False, forced=True)

    # -- following ---------------------------------------------------------------------------------------------------

    def _follow(self, leader: MemberId) -> None:
        """We heard from the leader of our term."""
        assert self.role is not Role.LEADER, f"two leaders in term {self.term}: {self.member} and {leader}"
        if self.leader != leader or self.role is not Role.FOLLOWER:
            self._become_follower(self.term, leader)
        self._since_leader = 0

    def _on_append(self, append: m.Append) -> None:
        self._follow(append.sender)
        log = self.log
        if append.prev_index < log.base.index:
            # Old news: what we compacted away was committed.
            self._accept(append.sender, log.committed)
        elif log.term(append.prev_index) == append.prev_term:
            log.merge(append.entries)
            last = Index(append.prev_index + len(append.entries))
            log.commit_to(min(append.commit, last))
            self._accept(append.sender, last)
        else:
            hint_index, hint_term = log.hint(append.prev_index, append.prev_term)
            self._promise(
                m.AppendReply(
                    self.member,
                    append.sender,
                    self.term,
                    rejected=True,
                    index=append.prev_index,
                    hint_index=hint_index,
                    hint_term=hint_term,
                )
            )

    def _accept(self, leader: MemberId, index: Index) -> None:
        self._promise(m.AppendReply(self.member, leader, self.term, rejected=False, index=index))

    def _on_heartbeat(self, heartbeat: m.Heartbeat) -> None:
        self._follow(heartbeat.sender)
        self.log.commit_to(heartbeat.commit)
        reply = m.HeartbeatReply(self.member, heartbeat.sender, self.term, read_round=heartbeat.read_round)
        # The answer says "I am in your term": that must survive a crash, but need not wait for entries.
        (self._send if self._saved_state.term == self.term else self._promise)(reply)

    def _on_commit(self, commit: m.Commit) -> None:
        self._follow(commit.sender)
        self.log.commit_to(commit.commit)

    def _on_install_snapshot(self, message: m.InstallSnapshot) -> None:
        self._follow(message.sender)
        mark, log = message.mark, self.log
        if mark.index <= log.committed:
            self._accept(message.sender, log.committed)
        elif log.term(mark.index) == mark.term:
            log.commit_to(mark.index)
            self._accept(message.sender, mark.index)
        else:
            self._logger.info("installs snapshot member=%d index=%d term=%d", self.member, mark.index, mark.term)
            log.restore(mark)
            self.snapshot = mark
            self._incoming = m.Snapshot(mark, message.data)
            self._accept(message.sender, mark.index)

    # -- leading -----------------------------------------------------------------------------------------------------

    def _tick_leader(self) -> None:
        config = self.config
        if self._since_leader >= config.election_ticks:
            self._since_leader = 0
            self.transferee = NOBODY
            heard = 1 + sum(progress.active for progress in self._progress.values())
            if heard < majority(config.voters):
                self._logger.warning("lost its quorum member=%d term=%d heard=%d", self.member, self.term, heard)
                self._become_follower(self.term, NOBODY)
                return
            for progress in self._progress.values():
                progress.active = False
        for progress in self._progress.values():
            if progress.state is State.SNAPSHOT:
                progress.waited_ticks += 1
                if progress.waited_ticks >= config.snapshot_patience_ticks:
                    progress.give_up_snapshot()
        self._since_heartbeat += 1
        if self._since_heartbeat >= config.heartbeat_ticks:
            self._send_heartbeats()

    def _send_heartbeats(self) -> None:
        self._since_heartbeat = 0
        for peer, progress in self._progress.items():
            commit = Index(min(progress.matched, self.log.committed))
            progress.commit_sent = commit
            self._send(m.Heartbeat(self.member, peer, self.term, commit=commit, read_round=self._reads.newest))

    def _replicate(self) -> None:
        """Send every follower what it lacks and may be sent."""
        log = self.log
        for peer, progress in self._progress.items():
            while progress.next <= log.last_index and not progress.paused:
                self._send_append(peer, progress)
            commit = Index(min(progress.matched, log.committed))
            if commit > progress.commit_sent:
                progress.commit_sent = commit
                self._send(m.Commit(self.member, peer, self.term, commit=commit))

    def _send_append(self, peer: MemberId, progress: Progress) -> None:
        log = self.log
        if progress.next <= log.base.index and not progress.behind:
            # Replies may have been lost: the oldest entry that we have is worth a try before a snapshot is.
            progress.next = Index(log.base.index + 1)
        prev_index = Index(progress.next - 1)
        prev_term = log.term(prev_index)
        if prev_term is None:
            self._logger.info("sends snapshot member=%d to=%d index=%d", self.member, peer, self.snapshot.index)
            progress.await_snapshot(self.snapshot.index)
            self._send(m.InstallSnapshot(self.member, peer, self.term, mark=self.snapshot))
            return
        entries: Sequence[Entry] = ()
        if progress.next <= log.last_index:
            entries = log.slice(progress.next, max_bytes=self.config.max_append_bytes)
        last = Index(prev_index + len(entries))
        progress.commit_sent = Index(max(progress.commit_sent, min(log.committed, last)))
        progress.sent(last, len(entries))
        self._send(
            m.Append(
                self.member,
                peer,
                self.term,
                prev_index=prev_index,
                prev_term=prev_term,
                entries=entries,
                commit=log.committed,
            )
        )

    def _heard_from(self, sender: MemberId) -> Progress | None:
        """Return the follower's progress; None if we do not lead (any more)."""
        if self.role is not Role.LEADER:
            return None
        progress = self._progress.get(sender)
        if progress is not None:
            progress.active = True
        return progress

    def _on_append_reply(self, reply: m.AppendReply) -> None:
        progress = self._heard_from(reply.sender)
        if progress is None:
            return
        if reply.rejected:
            may_agree, _ = self.log.hint(reply.hint_index, reply.hint_term)
            if progress.rejected(reply.index, may_agree):
                progress.behind = reply.index <= self.log.base.index
            return
        assert reply.index <= self.log.last_index, (reply, self.log.last_index)
        if progress.accepted(reply.index):
            self._advance_commit()
            self._hand_over_if_caught_up(reply.sender)

    def _on_heartbeat_reply(self, reply: m.HeartbeatReply) -> None:
        progress = self._heard_from(reply.sender)
        if progress is None:
            return
        progress.nudge()
        if progress.state is not State.SNAPSHOT and progress.matched < self.log.last_index:
            # Whatever was lost on the way shows by the answer to this.
            self._send_append(reply.sender, progress)
        if reply.read_round > progress.read_round:
            progress.read_round = reply.read_round
            self._answer_reads()

    def _advance_commit(self) -> None:
        """Commit what a majority has on disk, if it is of our own term (thesis 3.6.2)."""
        matched = {peer: progress.matched for peer, progress in self._progress.items()}
        matched[self.member] = self.log.saved
        index = Index(commit_index(matched, self.config.voters))
        if index > self.log.committed and self.log.term(index) == self.term:
            self.log.commit_to(index)

    def _hand_over_if_caught_up(self, to: MemberId) -> None:
        if to == self.transferee and self._progress[to].matched == self.log.last_index:
            self._send(m.TimeoutNow(self.member, to, self.term))

    # -- reads -------------------------------------------------------------------------------------------------------

    def _on_read_request(self, request: m.ReadRequest) -> None:
        if self.role is Role.LEADER:
            self._reads.ask(Question(request.sender, request.session, request.number))

    def _begin_read_round(self) -> None:
        if not self._reads.waiting or self.log.term(self.log.committed) != self.term:
            return
        self._reads.begin(self.log.committed)
        self._send_heartbeats()
        self._answer_reads()

    def _answer_reads(self) -> None:
        rounds = {peer: progress.read_round for peer, progress in self._progress.items()}
        rounds[self.member] = self._reads.newest
        for question, index in self._reads.confirm(commit_index(rounds, self.config.voters)):
            if question.asker == self.member:
                self._answers.append(m.ReadState(question.session, question.number, index))
            else:
                self._send(
                    m.ReadReply(
                        self.member,
                        question.asker,
                        self.term,
                        session=question.session,
                        number=question.number,
                        index=index,
                    )
                )

    def _on_read_reply(self, reply: m.ReadReply) -> None:
        self._answers.append(m.ReadState(reply.session, reply.number, reply.index))
