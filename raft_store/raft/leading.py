"""What a leader does: replication, commitment, its quorum, reads, handing over (thesis 3.5, 3.6, 3.10, 6.2, 6.4)."""

import logging
from collections import deque
from collections.abc import Mapping, Sequence

from raft_store.engine import Entry, Index, MemberId, Term
from raft_store.raft import messages as m
from raft_store.raft.log import Log
from raft_store.raft.messages import NOBODY
from raft_store.raft.progress import Progress
from raft_store.raft.progress import State as Stage
from raft_store.raft.quorum import is_quorum, joint_commit_index
from raft_store.raft.reads import Lease, Question, ReadRounds
from raft_store.raft.state import Chance, CoreConfig, Role, State

NOT_YET = Index(-1)
CATCHING_UP = 64  # who lacks more entries than this is sent them without a rest


class Leading(State):
    """A member as leader; what it knows as such ends with its lead."""

    def __init__(
        self, config: CoreConfig, *, hard_state: m.HardState, log: Log, random: Chance, logger: logging.Logger
    ) -> None:
        super().__init__(config, hard_state=hard_state, log=log, random=random, logger=logger)
        self.transferee = NOBODY  # whom we hand leadership to
        # The driver's: what followers can hear later waits until this is taken back: commit marks, for the next append
        # to take them along, and entries, for those whom their majority does not need.
        self.delays = False
        self.owes = False  # a follower could be told something, and that was delayed ...
        self.owes_from = Index(0)  # ... the entries from here on, even; 0: none
        self._held_back: Mapping[MemberId, Index] = {}  # who hears of entries later, and of which ...
        self._held_back_at = NOT_YET  # ... when the log ended there
        self.now_ms = 0.0  # a clock that never stands still; the driver sets it, for leases only
        self._progress: dict[MemberId, Progress] = {}
        self._reads = ReadRounds()
        self._lease = Lease(config.lease_ms)
        self._since_heartbeat = 0
        self._since_transfer = 0
        self._backlog: deque[tuple[Index, int]] = deque()  # (last index, bytes) of what we appended
        self._backlog_bytes = 0  # of those that are not committed

    def _become(self, role: Role, term: Term, leader: MemberId) -> None:
        super()._become(role, term, leader)
        self.transferee = NOBODY
        self.owes, self.owes_from = False, Index(0)
        self._held_back_at = NOT_YET
        self._progress = {}
        if role is Role.LEADER:
            self._progress = {peer: Progress(Index(self.log.last_index + 1)) for peer in self.peers}
        self._reads.clear()
        self._lease.clear()
        self._since_heartbeat = 0
        self._backlog.clear()
        self._backlog_bytes = 0

    # -- time --------------------------------------------------------------------------------------------------------

    def _tick_leader(self) -> None:
        config = self.config
        for peer, progress in tuple(self._progress.items()):
            progress.tick(snapshot_patience=config.snapshot_patience_ticks)
            if progress.farewell_ticks == 0:
                del self._progress[peer]
                self._held_back_at = NOT_YET
        self._tick_transfer()
        self._since_heartbeat += 1
        due = self._since_heartbeat >= config.heartbeat_ticks
        # Beside the last heartbeat in time, if there is one: it would be a waking of its own.
        if self._since_leader + (config.heartbeat_ticks - 1 if due else 0) >= self.patience.ticks:
            self._since_leader = 0
            heard = self._active()
            if not is_quorum(heard, self.configuration.halves):
                self._logger.warning("lost its quorum member=%d term=%d heard=%d", self.member, self.term, len(heard))
                self._become_follower(self.term, NOBODY)
                return
        if due:
            self.patience.relax()
            self._send_heartbeats()

    def _quiet_ticks_of_leader(self) -> int:
        watched = self.transferee != NOBODY or any(progress.waits_by_ticks for progress in self._progress.values())
        if watched:
            return 1
        to_heartbeat = self.config.heartbeat_ticks - self._since_heartbeat
        return max(1, min(to_heartbeat, self.patience.ticks - self._since_leader))

    def _active(self) -> set[MemberId]:
        """Return whoever was heard from within an election time-out, and ourselves (thesis 6.2)."""
        return self._heard_within(self.patience.ticks)

    def _heard_within(self, ticks: int) -> set[MemberId]:
        return {peer for peer, progress in self._progress.items() if progress.silent_ticks <= ticks} | {self.member}

    def _send_heartbeats(self) -> None:
        self._since_heartbeat = 0
        if self._lease.wanted:
            self._lease.sent(self._reads.next_round(), self.now_ms)
        for peer, progress in self._progress.items():
            commit = Index(min(progress.matched, self.log.committed))
            progress.commit_sent = commit
            self._send(m.Heartbeat(self.member, peer, self.term, commit=commit, read_round=self._reads.newest))

    # -- replication -------------------------------------------------------------------------------------------------

    def _replicate(self) -> None:
        """Send every follower what it lacks and may be sent; note whether any is owed something."""
        log, owes = self.log, False
        last, committed = log.last_index, log.committed
        if not self.delays:
            self._held_back_at, self._held_back = NOT_YET, {}
        elif last != self._held_back_at or self._waits_in_vain:
            self._held_back_at, self._held_back = last, self._hold_back(last)
        held_back = self._held_back
        for peer, progress in self._progress.items():
            if peer in held_back:
                owes = True
                continue  # the mark comes with the entries
            while progress.next <= last and not progress.paused:
                self._send_append(peer, progress)
            if committed <= progress.commit_sent or progress.in_flight:
                continue  # the next append, with the mark in it, follows the answer to what is under way
            commit = min(progress.matched, committed)
            if commit <= progress.commit_sent:
                continue
            if self.delays and not progress.awaits:
                owes = True
            else:
                progress.commit_sent = commit
                self._send(m.Commit(self.member, peer, self.term, commit=commit))
        self.owes, self.owes_from = owes, min(held_back.values()) if held_back else Index(0)

    def _hold_back(self, newest: Index) -> Mapping[MemberId, Index]:
        """Return who need not hear of the newest entries yet, and from where on: a majority keeps them without.

        Whoever waits for an entry waits for a majority only, and all who work on it at the same time are in each
        other's way, on the wire, and on one machine its cores and its disk. What the others hear a little later comes
        to them in one piece, for the price of one. Asked first is who is ahead, or else who waits for a commit itself:
        whoever falls behind, or is gone, is passed over as soon as the others have had their turn once.
        """
        configuration = self.agreed.configuration
        if configuration.outgoing:
            return {}
        voters = configuration.voters
        # Whom the majority needs beside us; one more where we have no vote any more.
        others = len(voters) // 2 + (self.member not in voters)
        held_back: dict[MemberId, Index] = {}
        for peer, progress in sorted(self._progress.items(), key=_by_rank, reverse=True):
            if progress.state is not Stage.REPLICATE:
                continue
            if others > 0 and peer in voters:
                others -= 1
            elif progress.awaits or peer == self.transferee or progress.next + CATCHING_UP <= newest:
                continue  # it waits itself, we wait for it, or it is too far behind to wait
            elif progress.next <= newest:
                held_back[peer] = progress.next
        return {} if others > 0 else held_back

    @property
    def _waits_in_vain(self) -> bool:
        """Whether somebody who was held back has come to wait for a commit."""
        for peer in self._held_back:  # noqa: SIM110 - asked after every event; any() would make a generator each time
            if self._progress[peer].awaits:
                return True
        return False

    @property
    def has_turn_for_others(self) -> bool:
        """Whether who is owed something would be in nobody's way: all that was written is applied."""
        return self.owes and self.log.applied == self.log.last_index

    @property
    def awaits_majority(self) -> bool:
        """Whether something that was written is not applied."""
        return self.log.applied < self.log.last_index

    def _send_append(self, peer: MemberId, progress: Progress) -> None:
        log = self.log
        if progress.next <= log.base.index and not progress.behind:
            # Replies may have been lost: the oldest entry that we have is worth a try before a snapshot is.
            progress.next = Index(log.base.index + 1)
        prev_index = Index(progress.next - 1)
        prev_term = log.term(prev_index)
        if prev_term is None and progress.farewell_ticks is not None:
            progress.await_snapshot(self.snapshot.index)  # which is not worth sending
            return
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
        """Return the follower's progress; None if we do not lead (any more), or it does not follow us."""
        if self.role is not Role.LEADER:
            return None
        progress = self._progress.get(sender)
        if progress is not None:
            if progress.silent_ticks > self.config.heartbeat_ticks:
                self._measure_silence()
            progress.silent_ticks = 0
        return progress

    def _measure_silence(self) -> None:
        """A follower lives that was silent for long. What counts is for how long our quorum was, which hung on it."""
        for ticks in sorted(progress.silent_ticks for progress in self._progress.values()):
            if is_quorum(self._heard_within(ticks), self.configuration.halves):
                self.patience.outlived(ticks)
                return

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
        if progress.accepted(reply.index, base=self.log.base.index):
            if reply.index > self.log.committed:  # else it was a minority's
                self._advance_commit()
            self._hand_over_if_caught_up(reply.sender)

    def _on_heartbeat_reply(self, reply: m.HeartbeatReply) -> None:
        progress = self._heard_from(reply.sender)
        if progress is None:
            return
        progress.nudge()
        if progress.state is not Stage.SNAPSHOT and progress.matched < self.log.last_index:
            # Whatever was lost on the way shows by the answer to this.
            self._send_append(reply.sender, progress)
        if reply.read_round > progress.read_round:
            progress.read_round = reply.read_round
            self._answer_reads()
        self._hand_over_if_caught_up(reply.sender)  # the word may have been lost

    def _advance_by_ourselves(self) -> None:
        """Commit what our own disk has now, if that can make a difference: another one has it too, or none is asked."""
        committed = self.log.committed
        for progress in self._progress.values():
            if progress.matched > committed:
                self._advance_commit()
                return
        if self._decides_alone:
            self._advance_commit()

    @property
    def _decides_alone(self) -> bool:
        return self.configuration.electorate == {self.member}

    def _advance_commit(self) -> None:
        """Commit what a majority has on disk, if it is of our own term (thesis 3.6.2)."""
        log = self.log
        while self.role is Role.LEADER:
            matched = {peer: progress.matched for peer, progress in self._progress.items()}
            matched[self.member] = log.saved
            index = Index(joint_commit_index(matched, self.agreed.configuration.halves))
            if index <= log.committed or log.term(index) != self.term:
                return
            regrouped = self._commit_to(index)
            while self._backlog and self._backlog[0][0] <= index:
                self._backlog_bytes -= self._backlog.popleft()[1]
            if not regrouped:
                return
            self._regroup()  # and look again: other voters may agree to more

    # -- the group ---------------------------------------------------------------------------------------------------

    def _regroup(self) -> None:
        """Another configuration took effect, or was sealed."""
        self._held_back_at = NOT_YET
        self._lease.renew()
        members = self.configuration.members
        for peer in sorted(members - self._progress.keys() - {self.member}):
            self._progress[peer] = Progress(Index(self.log.last_index + 1))
        for peer in self._progress.keys() - members:
            # It still has to learn of its removal, or will ask for ever.
            self._progress[peer].say_farewell(2 * self.config.election_ticks)
        if self.transferee not in self.configuration.voters:
            self.transferee = NOBODY
        if self.agreed.sealed and self.member not in self.configuration.electorate:
            self._retire()

    def _retire(self) -> None:
        """We have no vote any more, and a majority of those who have knows it: leave the lead to the best of them."""
        self.delays = False
        self._replicate()
        heirs = {peer: self._progress[peer] for peer in self.configuration.voters}
        heir = max(sorted(heirs), key=lambda peer: (heirs[peer].matched, -heirs[peer].silent_ticks))
        self._logger.info("leaves the lead member=%d to=%d term=%d", self.member, heir, self.term)
        self._send(m.TimeoutNow(self.member, heir, self.term))
        self._become_follower(self.term, NOBODY)

    # -- handing over ------------------------------------------------------------------------------------------------

    def transfer(self, to: MemberId) -> bool:
        """As the leader, begin to hand over to ``to``; given up after an election time-out (thesis 3.10)."""
        if self.role is not Role.LEADER or to == self.member or to not in self.configuration.voters:
            return False
        self._logger.info("handing over leadership member=%d to=%d term=%d", self.member, to, self.term)
        self.transferee, self._since_transfer = to, 0
        self._held_back_at = NOT_YET  # it has to hear of everything now
        self._lease.give_up()
        self._hand_over_if_caught_up(to)
        return True

    def _tick_transfer(self) -> None:
        self._since_transfer += 1
        if self.transferee != NOBODY and self._since_transfer >= self.config.election_ticks:
            self._logger.info("gave up handing over member=%d to=%d term=%d", self.member, self.transferee, self.term)
            self.transferee = NOBODY

    def _hand_over_if_caught_up(self, to: MemberId) -> None:
        if to == self.transferee and self._progress[to].matched == self.log.last_index:
            self._send(m.TimeoutNow(self.member, to, self.term))

    # -- reads -------------------------------------------------------------------------------------------------------

    def read(self, session: int, number: int) -> None:
        """As the leader, ask ourselves a question; the answer comes in ``Ready.reads``, or never if we are deposed."""
        if self.role is Role.LEADER:
            self._reads.ask(Question(self.member, session, number))

    def await_commit(self, peer: MemberId, index: Index) -> None:
        """A follower waits to hear that everything up to ``index`` is committed."""
        if (progress := self._progress.get(peer)) is not None:
            progress.awaited = max(progress.awaited, index)

    def _on_read_request(self, request: m.ReadRequest) -> None:
        if self.role is Role.LEADER:
            self._reads.ask(Question(request.sender, request.session, request.number))

    def _begin_read_round(self) -> None:
        if not self._reads.waiting or self.log.term(self.log.committed) != self.term:
            return
        if self._lease.holds(self.now_ms):
            self._answer(self._reads.answer(self.log.committed))
            return
        self._reads.begin(self.log.committed)
        self._send_heartbeats()
        self._answer_reads()

    def _answer_reads(self) -> None:
        rounds = {peer: progress.read_round for peer, progress in self._progress.items()}
        rounds[self.member] = self._reads.newest
        confirmed = joint_commit_index(rounds, self.configuration.halves)
        self._lease.confirmed(confirmed)
        self._answer(self._reads.confirm(confirmed))

    def _answer(self, answers: Sequence[tuple[Question, Index]]) -> None:
        for question, index in answers:
            if question.asker == self.member:
                self._answers.append(m.ReadState(question.session, question.number, index))
            else:
                self.await_commit(question.asker, index)
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


def _by_rank(item: tuple[MemberId, Progress]) -> tuple[Index, bool, Index]:
    progress = item[1]
    return progress.matched, progress.commit_sent < progress.awaited, progress.next
