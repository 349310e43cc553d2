"""What a follower does with what its leader sends (thesis 3.5, 5.1)."""

from raft_store.engine import Index, MemberId
from raft_store.raft import messages as m
from raft_store.raft.state import Role, State


class Following(State):
    """A member as follower."""

    def _follow(self, leader: MemberId) -> None:
        """We heard from the leader of our term."""
        assert self.role is not Role.LEADER, f"two leaders in term {self.term}: {self.member} and {leader}"
        if self.leader != leader or self.role is not Role.FOLLOWER:
            self._become_follower(self.term, leader)
        self._since_leader = 0
        self._orphaned = False
        self._excuses = self.config.heartbeat_ticks
        self.patience.heard(leader, self.term)

    def _on_append(self, append: m.Append) -> None:
        self._follow(append.sender)
        log = self.log
        if append.prev_index < log.base.index:
            # Old news: what we compacted away was committed.
            self._accept(append.sender, log.committed)
        elif log.term(append.prev_index) == append.prev_term:
            log.merge(append.entries)
            last = Index(append.prev_index + len(append.entries))
            self._commit_to(min(append.commit, last))
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
        self._commit_to(heartbeat.commit)
        reply = m.HeartbeatReply(self.member, heartbeat.sender, self.term, read_round=heartbeat.read_round)
        # The answer says "I am in your term": that must survive a crash, but need not wait for entries.
        (self._send if self._saved_state.term == self.term else self._promise)(reply)

    def _on_commit(self, commit: m.Commit) -> None:
        self._follow(commit.sender)
        self._commit_to(commit.commit)

    def _on_install_snapshot(self, message: m.InstallSnapshot) -> None:
        self._follow(message.sender)
        mark, log = message.mark, self.log
        if mark.index <= log.committed:
            self._accept(message.sender, log.committed)
        elif log.term(mark.index) == mark.term:
            self._commit_to(mark.index)
            self._accept(message.sender, mark.index)
        else:
            self._logger.info("installs snapshot member=%d index=%d term=%d", self.member, mark.index, mark.term)
            log.restore(mark)
            self._commit_to(mark.index)
            self.snapshot = mark
            self._incoming = m.Snapshot(mark, message.data)
            self._accept(message.sender, mark.index)
