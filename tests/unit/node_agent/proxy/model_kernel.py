"""A model of the kernel's tables and of the iptables programs that change them."""

from collections.abc import Sequence

from node_agent.errors import CommandFailed
from node_agent.proxy.ruleset import ChainId

BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
State = dict[ChainId, list[str]]


def kernel(**foreign: list[str]) -> State:
    """Tables as a system has them; ``foreign`` chains of the nat table belong to somebody else."""
    state: State = {ChainId(table, name): [] for table in ("nat", "filter") for name in BUILT_IN}
    return state | {ChainId("nat", name): list(rules) for name, rules in foreign.items()}


def restore(state: State, text: str) -> State:
    """What ``iptables-restore --noflush`` does, with its errors."""
    after = {chain: list(rules) for chain, rules in state.items()}
    table = ""
    for line in text.splitlines():
        match line.split(" ", 2):
            case [name] if name.startswith("*"):
                table = name[1:]
            case ["COMMIT"]:
                for chain, rules in after.items():
                    for rule in rules:
                        target = rule.split("-j ")[1].split()[0]
                        if target.startswith(("KUBE-", "FOREIGN")):
                            assert ChainId(chain.table, target) in after, f"{chain} jumps to {target}: not there"
                table = ""
            case [declared, *_] if declared.startswith(":"):
                after[ChainId(table, declared[1:])] = []
            case ["-A", chain, rule]:
                after[ChainId(table, chain)].append(rule)
            case ["-I", chain, rule]:
                assert rule.startswith("1 ")
                after[ChainId(table, chain)].insert(0, rule[2:])
            case ["-D", chain, rule]:
                after[ChainId(table, chain)].remove(rule)
            case ["-X", chain]:
                assert after.pop(ChainId(table, chain)) == [], f"{chain} is not empty"
            case _:
                raise AssertionError(line)
    assert table == "", "no COMMIT"
    return after


def save(state: State) -> str:
    lines = []
    for table in ("nat", "filter"):
        mine = {c.name: rules for c, rules in state.items() if c.table == table}
        lines += [f"*{table}", *(f":{name} - [0:0]" for name in mine)]
        lines += [f"-A {name} {rule}" for name, rules in mine.items() for rule in rules]
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


class ModelHost:
    """Stands in for the host's programs: a ``Runner`` over the model. ``fail_next``: restores that fail."""

    def __init__(self) -> None:
        self.state = kernel()
        self.restores: list[str] = []
        self.fail_next = 0
        self.saves = 0

    def __call__(self, argv: Sequence[str], stdin: str = "") -> str:
        match argv:
            case [program, "-t", table] if program.endswith("-save"):
                self.saves += 1
                return save({c: r for c, r in self.state.items() if c.table == table})
            case [program, "--noflush", *_] if program.endswith("-restore"):
                if self.fail_next:
                    self.fail_next -= 1
                    raise CommandFailed(argv, 4, "iptables-restore: line 2 failed")
                try:
                    self.state = restore(self.state, stdin)
                except AssertionError as exc:
                    raise CommandFailed(argv, 1, str(exc)) from exc
                self.restores.append(stdin)
                return ""
            case [_, "-w", _, "-t", table, "-S", chain]:
                if ChainId(table, chain) not in self.state:
                    raise CommandFailed(argv, 1, "No chain/target/match by that name.")
                rules = self.state[ChainId(table, chain)]
                return "\n".join([f"-N {chain}", *(f"-A {chain} {rule}" for rule in rules)])
            case [_, "-w", _, "-t", table, "-C", chain, *rule]:
                if " ".join(rule) not in self.state[ChainId(table, chain)]:
                    raise CommandFailed(argv, 1, "Bad rule (does a matching rule exist in that chain?).")
                return ""
            case _:
                raise AssertionError(argv)

    def flush(self, table: str) -> None:
        for chain in self.state:
            if chain.table == table:
                self.state[chain] = []
