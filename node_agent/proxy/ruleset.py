"""iptables chains as a value, and the text that takes the kernel from one value to another.

A ``Ruleset`` holds whole chains of our own plus the jumps that lead from the built-in chains into
them. Only whole chains are compared and written: ``iptables-restore --noflush`` empties a chain that
its input declares and leaves every other chain alone, each table in one transaction.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec


class ChainId(NamedTuple):
    """A chain of one table."""

    table: str
    name: str


class Jump(msgspec.Struct, frozen=True):
    """A rule in a built-in chain that leads into one of ours.

    match: iptables arguments of the rule before ``-j``.
    """

    table: str
    origin: str
    target: str
    match: str = ""

    @property
    def rule(self) -> str:
        """The rule without its chain."""
        return f"{self.match} -j {self.target}".lstrip()


class Ruleset(msgspec.Struct, frozen=True):
    """Everything that one owner programs: its chains, complete, and the way into them.

    chains: chain -> its rules in order, each without ``-A CHAIN``.
    jumps: in the order wanted within each built-in chain; they go before what others put there.
    """

    chains: Mapping[ChainId, tuple[str, ...]]
    jumps: tuple[Jump, ...] = ()


class Present(msgspec.Struct, frozen=True):
    """What the kernel holds of one or more tables.

    counts: chain -> number of its rules; the kernel's text of a rule differs from what was written.
    jumps: (table, built-in or foreign chain, rule without ``-A CHAIN``).
    """

    counts: Mapping[ChainId, int]
    jumps: tuple[tuple[str, str, str], ...]


def parse_save(text: str) -> Present:
    """Read the output of ``iptables-save``."""
    counts: dict[ChainId, int] = {}
    jumps: list[tuple[str, str, str]] = []
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            counts.setdefault(ChainId(table, line[1:].split(" ", 1)[0]), 0)
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            counts[ChainId(table, chain)] = counts.get(ChainId(table, chain), 0) + 1
            jumps.append((table, chain, rule))
    return Present(counts, tuple(jumps))


def missing_from(present: Present, wanted: Ruleset) -> list[str]:
    """Name what somebody removed or changed: chains with another number of rules, lost jumps."""
    faults = [
        f"{chain.table}/{chain.name}"
        for chain, rules in wanted.chains.items()
        if present.counts.get(chain) != len(rules)
    ]
    faults += [f"{j.table}/{j.origin} to {j.target}" for j in _lost_jumps(present, wanted)]
    return faults


def render_full(present: Present, wanted: Ruleset, owned_prefixes: Iterable[str]) -> str:
    """Return restore input that brings a kernel in any state to ``wanted``.

    owned_prefixes: chains whose names start so are ours; those not wanted any more are removed.
    """
    prefixes = tuple(owned_prefixes)
    stale = [c for c in present.counts if c.name.startswith(prefixes) and c not in wanted.chains]
    return _render(wanted.chains, stale, _lost_jumps(present, wanted), ())


def render_change(programmed: Ruleset, wanted: Ruleset) -> str:
    """Return restore input that brings a kernel holding ``programmed`` to ``wanted``; "" if nothing changed."""
    changed = {c: rules for c, rules in wanted.chains.items() if programmed.chains.get(c) != rules}
    stale = [c for c in programmed.chains if c not in wanted.chains]
    added = [j for j in wanted.jumps if j not in programmed.jumps]
    dropped = [(j.table, j.origin, j.rule) for j in programmed.jumps if j not in wanted.jumps]
    if not (changed or stale or added or dropped):
        return ""
    return _render(changed, stale, added, dropped)


def render_removal(present: Present, owned_prefixes: Iterable[str]) -> str:
    """Return restore input that removes our chains and every jump into them; "" if there are none."""
    prefixes = tuple(owned_prefixes)
    ours = [c for c in present.counts if c.name.startswith(prefixes)]
    into = [
        jump for jump in present.jumps if not jump[1].startswith(prefixes) and target_of(jump[2]).startswith(prefixes)
    ]
    return _render({}, ours, (), into) if ours or into else ""


def target_of(rule: str) -> str:
    """Return the chain or target that a rule jumps to, or "" for a rule without one."""
    words = rule.split()
    for flag in ("-j", "-g"):
        if flag in words:
            return words[words.index(flag) + 1]
    return ""


def _lost_jumps(present: Present, wanted: Ruleset) -> list[Jump]:
    held = {(table, chain, target_of(rule)) for table, chain, rule in present.jumps}
    return [j for j in wanted.jumps if (j.table, j.origin, j.target) not in held]


def _render(
    chains: Mapping[ChainId, tuple[str, ...]],
    stale: Iterable[ChainId],
    added: Iterable[Jump],
    dropped: Iterable[tuple[str, str, str]],
) -> str:
    stale, added, dropped = list(stale), list(added), list(dropped)
    tables = {c.table for c in (*chains, *stale)} | {j.table for j in added} | {d[0] for d in dropped}
    lines: list[str] = []
    for table in sorted(tables, reverse=True):  # nat first: where packets go, before what is refused
        mine = {c.name: rules for c, rules in chains.items() if c.table == table}
        doomed = [c.name for c in stale if c.table == table]
        lines.append(f"*{table}")
        lines += [f":{name} - [0:0]" for name in (*mine, *doomed)]
        lines += [f"-D {chain} {rule}" for where, chain, rule in dropped if where == table]
        # Inserting at the top turns the order round, so the last one goes in first.
        lines += [f"-I {j.origin} 1 {j.rule}" for j in reversed(added) if j.table == table]
        for name, rules in mine.items():
            lines += [f"-A {name} {rule}" for rule in rules]
        lines += [f"-X {name}" for name in doomed]
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"
