"""Who leads: terms, campaigns, votes (thesis 3.4, 3.6.1, 4.2.3, 9.6)."""

from raft_store.engine import Entry, Index, MemberId, Term
from raft_store.raft import messages as m
from raft_store.raft.messages import NOBODY
from raft_store.raft.quorum import Verdict, joint_tally
from raft_store.raft.state import Role, State

STAGGER_TICKS = 2  # between the campaigns of those whom one leader left behind: a vote is over by then, nearly always


class Elections(State):
    """A member as candidate and as voter."""

    # -- terms -------------------------------------------------------------------------------------------------------

    def observe(self, message: m.AnyMessage) -> bool:
        """Catch up with a message's term, or answer it with ours; return whether it still counts."""
        if message.term == self.term:
            return True
        if message.term > self.term:
            return self._learn_of_term(message)
        self._answer_old_term(message)
        return False

    def _learn_of_term(self, message: m.AnyMessage) -> bool:
        """Take over a higher term where the message proves that it began; return whether the message counts."""
        match message:
            case m.VoteRequest(forced=False) if self._hears_leader():
                return False  # thesis 4.2.3: no candidate, removed ones least of all, deposes a leader that works
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
                self.patience.heard(message.sender, message.term)  # it was slow, not dead, when it was replaced
                self._promise(m.AppendReply(self.member, message.sender, self.term, rejected=True, index=Index(0)))
            case m.VoteRequest(pre=True):
                self._promise(m.VoteReply(self.member, message.sender, self.term, granted=False, pre=True))
            case _:
                pass

    # -- candidates --------------------------------------------------------------------------------------------------

    def ended(self, peer: MemberId) -> None:
        """The connection to ``peer`` broke, and nothing listens any more where it did: its process has ended.

        If that was our leader, we need not wait for its silence. A time-out is there because nobody can tell a slow
        leader from a dead one; a system that refuses a connection can. It may be wrong (a wall that resets what it cuts
        off looks the same), and then no harm is done: we begin with a pre-vote, which whoever hears the leader refuses.
        Only a majority of voters none of whom reaches the leader replaces it, and without their answers it could not
        commit anything either. Sources: that elections may begin at any time, and disturb nobody, is 3.8 and 9.6;
        ZooKeeper's followers, too, go looking when the connection to their leader breaks (``Follower.followLeader``).

        Where reads rest on clocks we keep the silence that we promised, whatever we think of the leader.

        All who notice do so at once. So that they do not split the vote they go one after the other, by their ids.
        """
        if peer != self.leader or self.role is not Role.FOLLOWER or self.config.lease_ms:
            return
        self._orphaned = True
        heirs = sorted(self.configuration.electorate - {peer})
        place = heirs.index(self.member) if self.member in heirs else len(heirs)
        self._since_leader = max(self._since_leader, self._campaign_ticks - 1 - place * STAGGER_TICKS)

    def _tick_without_lead(self) -> None:
        alone = self.configuration.electorate == {self.member}
        if self._since_leader >= self._campaign_ticks or alone:
            self._campaign(pre=True)
        elif self.role is not Role.FOLLOWER and (
            # Who did not answer may have noticed our leader's end since.
            self._orphaned or self._since_leader % self.config.heartbeat_ticks == 0
        ):
            self._ask_for_votes()

    def _campaign(self, *, pre: bool, forced: bool = False) -> None:
        if not self._may_lead:
            self._become_follower(self.term, NOBODY)
            return
        self._logger.info("campaigns member=%d term=%d pre=%s forced=%s", self.member, self.term + 1, pre, forced)
        orphaned = self._orphaned
        if pre:
            self._become(Role.PRECANDIDATE, self.term, NOBODY)
        else:
            self._become(Role.CANDIDATE, Term(self.term + 1), NOBODY)
            self.vote = self.member
        self._forced, self._orphaned = forced, orphaned
        self._ask_for_votes()
        own = m.VoteReply(self.member, self.member, self._asked_term, granted=True, pre=pre)
        if pre:
            self._on_vote_reply(own)
        else:
            self._promise(own)

    @property
    def _may_lead(self) -> bool:
        """Whether we may campaign: not as a learner, nor removed, nor before we know our group."""
        if self.member in self.configuration.electorate:
            return True
        # The last change took our vote; who does not know that the change is committed may need us to end it (4.2.2).
        before = self.log.configuration_before
        unsealed = not self.agreed.sealed or self.log.changing
        return unsealed and before is not None and self.member in before.electorate

    @property
    def _asked_term(self) -> Term:
        return Term(self.term + 1) if self.role is Role.PRECANDIDATE else self.term

    def _ask_for_votes(self) -> None:
        """Ask whoever has not answered; asked again in vain does no harm."""
        pre, asked_term = self.role is Role.PRECANDIDATE, self._asked_term
        for voter in sorted(self.configuration.electorate - {self.member} - self._votes.keys()):
            request = m.VoteRequest(
                self.member,
                voter,
                asked_term,
                last_index=self.log.last_index,
                last_term=self.log.last_term,
                pre=pre,
                forced=self._forced,
            )
            # Asking for a vote in a term tells that we voted for ourselves in it.
            (self._send if pre else self._promise)(request)

    def _on_vote_reply(self, reply: m.VoteReply) -> None:
        if self.role is Role.PRECANDIDATE:
            # A grant counts for the term we asked about only; a refusal carries the voter's own.
            if not reply.pre or (reply.granted and reply.term != self.term + 1):
                return
        elif self.role is not Role.CANDIDATE or reply.pre:
            return
        self._votes[reply.sender] = reply.granted
        match joint_tally(self._votes, self.configuration.halves):
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

    def _become_leader(self) -> None:
        self._logger.info("became leader member=%d term=%d last=%d", self.member, self.term, self.log.last_index)
        self._become(Role.LEADER, self.term, self.member)
        # An entry of our own term has to be committed before any older one counts as committed (thesis 3.6.2).
        self.log.append([Entry(Index(self.log.last_index + 1), self.term, b"")])

    # -- voters ------------------------------------------------------------------------------------------------------

    def _on_vote_request(self, request: m.VoteRequest) -> None:
        """Vote, or not. Whether we have a vote is the candidate's business: it may know more of the group (4.2.1)."""
        # In a term that we already know of, too, we keep what we promised to the leader of the one before.
        if self._hears_leader() if request.pre else self._deaf_ticks > 0 and not request.forced:
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
