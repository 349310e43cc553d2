"""What members say and become, in a few words each: for diagrams."""

from typing import assert_never

from raft_store.engine import Term
from raft_store.raft import messages as m
from raft_store.raft.state import Role


def stands(role: Role, term: Term, leader: str) -> str:
    """Return what a member is; leader: whom it follows, empty if it knows none."""
    match role:
        case Role.LEADER:
            return f"LEADS in term {term}"
        case Role.CANDIDATE:
            return f"campaigns in term {term}, votes for itself"
        case Role.PRECANDIDATE:
            return f"lost patience: would anybody vote for me in term {term + 1}?"
        case Role.FOLLOWER:
            return f"follows {leader} in term {term}" if leader else f"now in term {term}"


def is_beat(message: m.AnyMessage) -> bool:
    """Return whether a message only says that somebody is there: one round of them says it all."""
    return isinstance(message, m.Heartbeat | m.HeartbeatReply)


def describe(message: m.AnyMessage) -> str:
    """Return what a message says, in a few words."""
    match message:
        case m.VoteRequest():
            wish = "would you" if message.pre else "VOTE"
            return f"{wish}? t{message.term}, log {message.last_index}/t{message.last_term}"
        case m.VoteReply():
            return f"{'yes' if message.granted else 'no'}, t{message.term}"
        case m.Append(entries=[]) | m.Append(entries=()):
            return f"have you {message.prev_index}/t{message.prev_term}?"
        case m.Append():
            first, last = message.entries[0].index, message.entries[-1].index
            which = f"{first}" if first == last else f"{first}..{last}"
            return f"append {which} after {message.prev_index}/t{message.prev_term}"
        case m.AppendReply(rejected=True):
            return f"no, try {message.hint_index}/t{message.hint_term}"
        case m.AppendReply():
            return f"on my disk up to {message.index}"
        case m.Heartbeat():
            return f"heartbeat t{message.term}"
        case m.HeartbeatReply():
            return "still yours"
        case m.Commit():
            return f"committed up to {message.commit}"
        case m.Forward():
            return f"forward {len(message.proposals)} proposal"
        case m.ForwardReply():
            return f"took {message.accepted}"
        case m.InstallSnapshot():
            return f"snapshot of {message.mark.index}/t{message.mark.term}"
        case m.ReadRequest():
            return "what is committed?"
        case m.ReadReply():
            return f"all up to {message.index}"
        case m.TimeoutNow():
            return "campaign now: you take over"
        case _:
            assert_never(message)
