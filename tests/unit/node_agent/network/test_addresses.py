from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.errors import AddressesExhausted
from node_agent.network.addresses import AddressBook, AddressFile
from node_agent.network.host_ports import HostPort


def test_gateway_network_and_broadcast_are_never_given() -> None:
    book = AddressBook("10.244.1.0/29")
    for key in "abcde":
        book = book.assign(key)
    assert sorted(book.leases.values()) == [f"10.244.1.{n}" for n in (2, 3, 4, 5, 6)]
    assert book.gateway == "10.244.1.1"
    with pytest.raises(AddressesExhausted, match=r"all 5 addresses of 10\.244\.1\.0/29"):
        book.assign("f")


def test_a_pod_keeps_its_address() -> None:
    book = AddressBook("10.244.1.0/24").assign("a").assign("b")
    assert book.assign("a") is book
    assert book.release("nobody") is book


def test_a_freed_address_rests_as_long_as_possible() -> None:
    book = AddressBook("10.244.1.0/29").assign("a").release("a").assign("b")
    assert book.leases["b"] == "10.244.1.3"
    for key in "cdef":
        book = book.assign(key)
    assert book.leases["f"] == "10.244.1.2", "given again only when nothing else is left"


def test_retain_believes_the_kernel_before_the_book() -> None:
    book = AddressBook("10.244.1.0/24").assign("moved").assign("gone").assign("waits").assign("robbed")
    held = {"moved": "10.244.1.9", "lost": "10.244.1.5", "stranger": "10.244.1.7", "foreign": "10.0.0.1"}
    kept = book.retain({"moved", "waits", "robbed", "lost", "foreign"}, held)
    # What "robbed" had on paper is in the hands of "lost"; two pods must never share it.
    assert kept.leases == {"moved": "10.244.1.9", "waits": "10.244.1.4", "lost": "10.244.1.5"}
    assert kept.retain(set(kept.leases), held) is kept


def test_ports_come_and_go_with_their_pod(tmp_path: Path) -> None:
    ports = (HostPort(8080, 80),)
    book = AddressBook("10.244.1.0/24").assign("a", ports).assign("b")
    assert book.open_ports == {"10.244.1.2": ports}
    assert book.assign("a", ports) is book
    assert book.assign("a", ()).open_ports == {}
    AddressFile(tmp_path / "book").save(book)
    assert AddressFile(tmp_path / "book").load(book.cidr) == book
    assert book.release("a").ports == {}
    assert book.retain({"b"}, {}).ports == {}
    assert book.retain({"a"}, {}).open_ports == book.open_ports


@pytest.mark.parametrize(
    ("cidr", "why"),
    [
        ("fd00::/64", "only IPv4"),
        ("10.244.1.0/31", "too small"),
        ("10.244.1.7/24", "host bits"),
        ("x", "does not appear"),
    ],
)
def test_a_cidr_that_cannot_work_is_refused(cidr: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        AddressBook(cidr)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans())))
def test_no_two_pods_ever_share_an_address(steps: list[tuple[str, bool]]) -> None:
    book = AddressBook("10.244.1.0/29")
    for key, comes in steps:
        try:
            book = book.assign(key) if comes else book.release(key)
        except AddressesExhausted:
            assert len(book.leases) == 5
        assert len(set(book.leases.values())) == len(book.leases)
        assert all(book.holds(a) for a in book.leases.values())


def test_the_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    file = AddressFile(tmp_path / "deep" / "addresses.json")
    assert file.load("10.244.1.0/24") == AddressBook("10.244.1.0/24")
    book = AddressBook("10.244.1.0/24").assign("a")
    file.save(book)
    file.save(book.assign("b"))
    assert file.load("10.244.1.0/24") == book.assign("b")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["addresses.json"]


def test_a_half_written_draft_changes_nothing(tmp_path: Path) -> None:
    file = AddressFile(tmp_path / "addresses.json")
    book = AddressBook("10.244.1.0/24").assign("a")
    file.save(book)
    file.path.with_suffix(".new").write_bytes(b'{"cidr"')  # the agent was killed while it wrote
    assert file.load("10.244.1.0/24") == book


@pytest.mark.parametrize("content", [b"", b"{", b'{"cidr": 5}', b'{"cidr": "10.244.1.7/24"}', b"\xff"])
def test_a_damaged_file_is_set_aside(tmp_path: Path, content: bytes) -> None:
    file = AddressFile(tmp_path / "addresses.json")
    file.path.write_bytes(content)
    assert file.load("10.244.1.0/24") == AddressBook("10.244.1.0/24")
    assert file.path.with_suffix(".damaged").read_bytes() == content


def test_another_cidr_starts_afresh(tmp_path: Path) -> None:
    file = AddressFile(tmp_path / "addresses.json")
    file.save(AddressBook("10.244.1.0/24").assign("a"))
    assert file.load("10.244.2.0/24") == AddressBook("10.244.2.0/24")
