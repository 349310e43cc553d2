"""How a leader changes its group, one change at a time (thesis 4; see ``membership``)."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from raft_store.engine import Change, ChangeKind, ChangeRefused, Entry, Index, MemberId, Refusal
from raft_store.raft.leading import Leading
from raft_store.raft.membership import Configuration, changed, check_active, check_started, encode, in_sync, left
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
            check_started(self.configuration, changes, started)
            check_active(self.configuration, changes, self._active())
        return self._append_configuration(changed(self.configuration, changes, joint=joint))

    @property
    def _may_change(self) -> bool:
        """Whether the last change is over, and our view of it is certain: an entry of our own term is committed."""
        log = self.log
        return (
            self.transferee == NOBODY
            and self.agreed.sealed
            and not log.changing
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

    def _go_on_with_change(self) -> None:
        """As the leader, once a step of a change is committed, take the next one: leave a joint one, or seal it."""
        if not self.agreed.sealed and not self.log.changing:
            now = self.configuration
            self._append_configuration(left(now) if now.auto_leave else now)

    def _append_configuration(self, configuration: Configuration) -> Index:
        index = Index(self.log.last_index + 1)
        self.log.append([Entry(index, self.term, encode(configuration), reconfigures=True)])
        return index
