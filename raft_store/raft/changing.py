"""How a leader changes its group, one change at a time (thesis 4; see ``membership``)."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from raft_store.engine import Change, ChangeKind, ChangeRefused, Entry, Index, MemberId, Refusal
from raft_store.raft.leading import Leading
from raft_store.raft.membership import Configuration, changed, check_prudent, encode, in_sync, left
from raft_store.raft.messages import NOBODY
from raft_store.raft.state import Role


class Changing(Leading):
    """A leader asked for another configuration."""

    def change(
        self, changes: Sequence[Change], *, joint: bool = False, started: AbstractSet[MemberId] | None = None
    ) -> Index:
        """As the leader, put the configuration after ``changes`` into the log; return its index.

        joint: by joint consensus even if one step would do. started: members that ever took part, if changes are to
        be refused that would leave too few of them; None: only what Raft itself forbids is refused.
        Raises ChangeRefused; nothing was changed then.
        """
        if self.role is not Role.LEADER:
            raise ChangeRefused(Refusal.NOT_LEADER)
        if not self._may_change:
            raise ChangeRefused(Refusal.CHANGE_UNDER_WAY)
        self._check_learners(changes)
        if started is not None:
            check_prudent(self.configuration, changes, started=started, active=self._active())
        return self._append_configuration(changed(self.configuration, changes, joint=joint))

    @property
    def _may_change(self) -> bool:
        """Whether the last change is over, and our view of it is certain: an entry of our own term is committed."""
        log = self.log
        return (
            self.transferee == NOBODY
            and not self.configuration.joint
            and log.newest_configured_at <= log.committed
            and log.term(log.committed) == self.term
        )

    def _check_learners(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.kind is not ChangeKind.PROMOTE:
                continue
            if change.member not in self.configuration.members:
                raise ChangeRefused(Refusal.MEMBER_UNKNOWN)
            matched = self._progress[change.member].matched if change.member != self.member else self.log.saved
            if not in_sync(learner_matched=matched, leader_matched=self.log.saved):
                raise ChangeRefused(Refusal.LEARNER_BEHIND)

    def _leave_joint(self) -> None:
        """As the leader, take the second step of a change once the first one is committed."""
        log = self.log
        if self.configuration.auto_leave and log.newest_configured_at <= log.committed:
            self._append_configuration(left(self.configuration))

    def _append_configuration(self, configuration: Configuration) -> Index:
        index = Index(self.log.last_index + 1)
        self.log.append([Entry(index, self.term, encode(configuration), reconfigures=True)])
        return index
