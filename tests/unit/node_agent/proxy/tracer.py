"""Walks packets through rendered rules, as the kernel would, and tells where each may land.

Every random choice is followed both ways, so an outcome comes with its probability. An option that the
tracer does not know fails the test: a rule must not pass unread.
"""

import ipaddress
import shlex
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from node_agent.proxy.ruleset import ChainId, Ruleset

LOCAL = frozenset({"192.0.2.1", "10.244.1.1", "127.0.0.1"})
"""The addresses of the traced node."""

VERDICTS = ("ACCEPT", "DROP", "REJECT", "DNAT", "MASQUERADE", "RETURN", "MARK")


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection. remembered: names of ``recent`` lists that hold its source."""

    source: str
    target: str
    port: int
    protocol: str = "tcp"
    mark: int = 0
    state: str = "NEW"
    remembered: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """verdict: ACCEPT, DROP or REJECT; where the packet goes, whether its source is masqueraded."""

    verdict: str
    target: str
    masqueraded: bool = False


@dataclass(frozen=True)
class _Branch:
    packet: Packet
    chance: float
    verdict: str


def trace(rules: Ruleset, packet: Packet, *, forward_policy: str = "ACCEPT") -> dict[Outcome, float]:
    """Return outcome -> probability for a packet that meets these rules first, then the FORWARD policy."""
    from_here = packet.source in LOCAL
    found: dict[Outcome, float] = defaultdict(float)
    for branch in _walk_built_in(rules, "nat", "OUTPUT" if from_here else "PREROUTING", packet):
        for after in _filter(rules, replace(branch, verdict=""), forward_policy, from_here=from_here):
            verdict = after.verdict or "ACCEPT"
            masqueraded = verdict == "ACCEPT" and any(
                last.verdict == "MASQUERADE" for last in _walk_built_in(rules, "nat", "POSTROUTING", after.packet)
            )
            target = f"{after.packet.target}:{after.packet.port}"
            found[Outcome(verdict, target, masqueraded)] += after.chance
    return dict(found)


def _filter(rules: Ruleset, branch: _Branch, policy: str, *, from_here: bool) -> Iterator[_Branch]:
    """Yield the packet after every filter hook on its way; what talks to itself passes two."""
    to_here = branch.packet.target in LOCAL
    ways = {(True, True): ("OUTPUT", "INPUT"), (True, False): ("OUTPUT",), (False, True): ("INPUT",)}
    branches = [branch]
    for hook in ways.get((from_here, to_here), ("FORWARD",)):
        passed: list[_Branch] = []
        for before in branches:
            if before.verdict in ("DROP", "REJECT"):
                passed.append(before)
                continue
            walked = _walk_built_in(rules, "filter", hook, before.packet)
            default = policy if hook == "FORWARD" else "ACCEPT"
            passed += [
                replace(after, chance=before.chance * after.chance, verdict=after.verdict or default)
                for after in walked
            ]
        branches = passed
    yield from branches


def targets(rules: Ruleset, packet: Packet, **options: str) -> dict[str, float]:
    """Return where an accepted packet may go -> probability; a refused one goes to its verdict."""
    found: dict[str, float] = defaultdict(float)
    for outcome, chance in trace(rules, packet, **options).items():
        found[outcome.target if outcome.verdict == "ACCEPT" else outcome.verdict] += chance
    return dict(found)


def _walk_built_in(rules: Ruleset, table: str, hook: str, packet: Packet) -> list[_Branch]:
    lines = tuple(j.rule for j in rules.jumps if (j.table, j.origin) == (table, hook))
    return list(_walk(rules, table, lines, _Branch(packet, 1.0, "")))


def _walk(rules: Ruleset, table: str, lines: tuple[str, ...], start: _Branch) -> Iterator[_Branch]:
    """Yield every way through a chain; an empty verdict means that the caller's chain goes on."""
    if not lines:
        yield start
        return
    rule = _Rule(lines[0])
    chance = rule.chance(start.packet)
    if chance > 0:
        hit = replace(start, chance=start.chance * chance)
        for branch in _apply(rules, table, rule, hit):
            if branch.verdict:
                yield replace(branch, verdict="" if branch.verdict == "RETURN" else branch.verdict)
            else:
                yield from _walk(rules, table, lines[1:], branch)
    if chance < 1:
        yield from _walk(rules, table, lines[1:], replace(start, chance=start.chance * (1 - chance)))


def _apply(rules: Ruleset, table: str, rule: "_Rule", branch: _Branch) -> Iterator[_Branch]:
    packet = branch.packet
    match rule.target:
        case "DNAT":
            ip, port = rule.options["to-destination"].rsplit(":", 1)
            yield replace(branch, packet=replace(packet, target=ip, port=int(port)), verdict="DNAT")
        case "MARK":
            value, mask = (int(x, 16) for x in rule.options["set-xmark"].split("/"))
            yield replace(branch, packet=replace(packet, mark=(packet.mark & ~mask) ^ value))
        case verdict if verdict in VERDICTS:
            yield replace(branch, verdict=verdict)
        case chain:
            key = ChainId(table, chain)
            assert key in rules.chains, f"a jump to {key}, which does not exist"
            yield from _walk(rules, table, rules.chains[key], branch)


class _Rule:
    """A parsed rule: its conditions as (name, negated, value), its target and the target's options."""

    VALUED = ("s", "d", "p", "dport", "comment", "mark", "dst-type", "src-type", "ctstate", "probability", "name")
    IGNORED = ("m", "seconds", "mode")
    BARE = ("rcheck", "set", "reap", "random-fully")
    TARGET_OPTIONS = ("to-destination", "set-xmark")

    def __init__(self, text: str) -> None:
        self.target = ""
        self.options: dict[str, str] = {}
        self.conditions: list[tuple[str, bool, str]] = []
        words = iter(shlex.split(text))
        negated = False
        for word in words:
            if word == "!":
                negated = True
                continue
            name = word.lstrip("-")
            if name == "j":
                self.target = next(words)
            elif name in self.TARGET_OPTIONS:
                self.options[name] = next(words)
            elif name in self.IGNORED:
                next(words)
            elif name in self.BARE:
                self.conditions.append((name, negated, ""))
            else:
                assert name in self.VALUED, f"unknown option {word} in: {text}"
                self.conditions.append((name, negated, next(words)))
            negated = False
        assert self.target, text

    def chance(self, packet: Packet) -> float:
        """The probability that the packet matches."""
        chance = 1.0
        for name, negated, value in self.conditions:
            if name == "probability":
                chance *= float(value)
            elif self._holds(name, value, packet) == negated:
                return 0.0
        return chance

    def _holds(self, name: str, value: str, packet: Packet) -> bool:
        match name:
            case "s":
                return ipaddress.ip_address(packet.source) in ipaddress.ip_network(value)
            case "d":
                return ipaddress.ip_address(packet.target) in ipaddress.ip_network(value)
            case "p":
                return packet.protocol == value
            case "dport":
                return packet.port == int(value)
            case "mark":
                wanted, mask = (int(x, 16) for x in value.split("/"))
                return packet.mark & mask == wanted
            case "dst-type" | "src-type":
                assert value == "LOCAL"
                return (packet.target if name == "dst-type" else packet.source) in LOCAL
            case "ctstate":
                return packet.state in value.split(",")
            case "rcheck":
                listed = next(v for n, _, v in self.conditions if n == "name")
                return listed in packet.remembered
            case _:
                return True
