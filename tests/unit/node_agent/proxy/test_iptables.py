from collections.abc import Sequence

import pytest

from node_agent.commands import run_command
from node_agent.errors import CommandFailed, Unsupported
from node_agent.proxy.iptables import Iptables, pick_backend

DOCKER = "*filter\n:DOCKER - [0:0]\nCOMMIT\n"
HINT = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n"
OTHER = "*filter\n:INPUT ACCEPT [0:0]\n:DOCKERISH - [0:0]\nCOMMIT\n"


@pytest.mark.parametrize(
    ("nft", "legacy", "expected"),
    [
        pytest.param("", "", "nft", id="nothing to see"),
        pytest.param(OTHER, OTHER, "nft", id="nothing that tells"),
        pytest.param("", DOCKER, "legacy", id="docker in legacy"),
        pytest.param(DOCKER, "", "nft", id="docker in nft"),
        pytest.param(DOCKER, DOCKER, "nft", id="docker in both"),
        pytest.param(DOCKER, HINT, "legacy", id="a hint beats docker"),
        pytest.param(None, "", "legacy", id="only legacy installed"),
        pytest.param("", None, "nft", id="only nft installed"),
    ],
)
def test_the_back_end_is_where_the_rules_are(nft: str | None, legacy: str | None, expected: str) -> None:
    assert pick_backend(nft, legacy) == expected


def test_a_host_without_iptables_is_refused() -> None:
    with pytest.raises(Unsupported, match="install iptables"):
        pick_backend(None, None)


def test_a_failed_restore_shows_the_line_that_failed() -> None:
    def fails(argv: Sequence[str], stdin: str = "") -> str:
        raise CommandFailed(argv, 2, "Bad argument\nError occurred at line: 3\n")

    with pytest.raises(CommandFailed, match=r"line 3: -A FOO --nonsense") as caught:
        Iptables("nft", fails).restore("*nat\n:FOO - [0:0]\n-A FOO --nonsense\nCOMMIT\n")
    assert "iptables-nft-restore --noflush -w 5" in str(caught.value)


def test_a_chain_is_looked_up_without_reading_everything() -> None:
    def host(argv: Sequence[str], stdin: str = "") -> str:
        listed = {"FULL": "-N FULL\n-A FULL -j RETURN\n", "EMPTY": "-N EMPTY\n"}
        if argv[-1] not in listed:
            raise CommandFailed(argv, 4 if argv[-1] == "LOCKED" else 1, "no")
        return listed[argv[-1]]

    iptables = Iptables("nft", host)
    assert iptables.has_rules("nat", "FULL")
    assert not iptables.has_rules("nat", "EMPTY")
    assert not iptables.has_rules("nat", "GONE")
    with pytest.raises(CommandFailed):
        iptables.has_rules("nat", "LOCKED")


def test_a_missing_program_is_named() -> None:
    with pytest.raises(CommandFailed, match="status 127: program not found"):
        run_command(["trireme-has-no-such-program"])
    assert run_command(["cat"], "hello") == "hello"
    with pytest.raises(CommandFailed, match="status 3"):
        run_command(["sh", "-c", "exit 3"])
