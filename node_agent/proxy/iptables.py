"""Runs the host's iptables programs; everything here blocks.

Two back ends exist side by side, nf_tables and legacy, and a host whose rules are spread over both
misbehaves in ways nobody can see from either. ``find_backend`` therefore looks where the rules of
kubelet and Docker are, as iptables-wrappers does.
"""

import logging
import re
import shlex
import shutil
from collections.abc import Sequence

from node_agent.commands import Runner, run_command
from node_agent.errors import CommandFailed, Unsupported
from node_agent.proxy.ruleset import Jump, Present, Ruleset, parse_save, render_change, render_full, render_removal

log = logging.getLogger(__name__)

TABLES = ("nat", "filter")
LOCK_WAIT_S = 5
HINTS = ("KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY")


def pick_backend(nft_rules: str | None, legacy_rules: str | None) -> str:
    """Return "nft" or "legacy" from what ``iptables-*-save`` prints; None for a program that is not there.

    Kubelet's hint chains decide, then Docker's chains, then nft as the one that systems ship today.
    Raises Unsupported if neither program is there.
    """
    if nft_rules is None and legacy_rules is None:
        raise Unsupported("neither iptables-nft-save nor iptables-legacy-save is here; install iptables")
    if nft_rules is None:
        return "legacy"
    if legacy_rules is None:
        return "nft"
    for marks in (HINTS, ("DOCKER",)):
        for backend, rules in (("nft", nft_rules), ("legacy", legacy_rules)):
            if any(f":{mark} " in rules for mark in marks):
                return backend
    return "nft"


def find_backend(run: Runner = run_command) -> str:
    """Look at this host's rules and return "nft" or "legacy"."""
    saved = {
        backend: run([f"iptables-{backend}-save"]) if shutil.which(f"iptables-{backend}-save") else None
        for backend in ("nft", "legacy")
    }
    backend = pick_backend(saved["nft"], saved["legacy"])
    log.info("iptables back end chosen backend=%s", backend)
    return backend


class Iptables:
    """The host's IPv4 tables through one back end."""

    def __init__(self, backend: str, run: Runner = run_command) -> None:
        self.backend = backend
        self._run = run

    def present(self, tables: Sequence[str] = TABLES) -> Present:
        """Read what the kernel holds."""
        program = f"iptables-{self.backend}-save"
        return parse_save("".join(self._run([program, "-t", table]) for table in tables))

    def restore(self, text: str) -> None:
        """Apply restore input, each table as a whole or not at all."""
        argv = [f"iptables-{self.backend}-restore", "--noflush", "-w", str(LOCK_WAIT_S)]
        try:
            self._run(argv, text)
        except CommandFailed as exc:
            line = _faulty_line(exc.output, text)
            raise CommandFailed(exc.argv, exc.status, f"{exc.output.strip()} {line}".strip()) from exc

    def has_rules(self, table: str, chain: str) -> bool:
        """Whether the chain exists and holds a rule: a cheap sign that nobody flushed the table."""
        listed = self._ask(table, "-S", chain)
        return listed is not None and any(line.startswith("-A ") for line in listed.splitlines())

    def has_jump(self, jump: Jump) -> bool:
        """Whether the jump is in its built-in chain."""
        return self._ask(jump.table, "-C", jump.origin, *shlex.split(jump.rule)) is not None

    def replace(self, wanted: Ruleset, owned_prefixes: Sequence[str]) -> None:
        """Bring the kernel to ``wanted`` from whatever it holds."""
        self.restore(render_full(self.present(), wanted, owned_prefixes))

    def change(self, programmed: Ruleset, wanted: Ruleset) -> bool:
        """Bring the kernel from ``programmed`` to ``wanted``; False if there was nothing to do."""
        text = render_change(programmed, wanted)
        if text:
            self.restore(text)
        return bool(text)

    def remove(self, owned_prefixes: Sequence[str]) -> None:
        """Remove our chains and every way into them."""
        text = render_removal(self.present(), owned_prefixes)
        if text:
            self.restore(text)

    def _ask(self, table: str, *question: str) -> str | None:
        """Return what iptables says, None if it says that there is no such thing."""
        try:
            return self._run([f"iptables-{self.backend}", "-w", str(LOCK_WAIT_S), "-t", table, *question])
        except CommandFailed as exc:
            if exc.status == 1:
                return None
            raise


def _faulty_line(output: str, text: str) -> str:
    """Return the line of the input that a failed restore complains about, if it names one."""
    found = re.search(r"line:? (\d+)", output)
    lines = text.splitlines()
    if found is None or not 0 < int(found[1]) <= len(lines):
        return ""
    return f"(line {found[1]}: {lines[int(found[1]) - 1]})"
