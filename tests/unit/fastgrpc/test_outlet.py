"""Bytes leave at once, in their order, and only through a transport that is open."""

import socket
from collections.abc import Iterator

import pytest

from fastgrpc.outlet import outlet


class LateTransport:
    """Keeps what it is given until its turn of the loop is over, as uvloop's do."""

    def __init__(self, own: socket.socket, *, tls: bool = False) -> None:
        self.kept: list[bytes] = []
        self.closing = False
        self._extra = {"socket": own, "sslcontext": object() if tls else None}

    def get_extra_info(self, name: str) -> object:
        return self._extra[name]

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.kept))

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.kept.append(data)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    own, other = socket.socketpair()
    with own, other:
        own.setblocking(False)
        other.setblocking(False)
        yield own, other


def test_bytes_leave_at_once(pair):
    own, other = pair
    transport = LateTransport(own)
    outlet(transport)(b"an answer")
    assert (other.recv(100), transport.kept) == (b"an answer", [])


def test_what_waits_goes_first(pair):
    own, other = pair
    transport = LateTransport(own)
    transport.kept.append(b"before")
    outlet(transport)(b"behind")
    assert transport.kept == [b"before", b"behind"]
    with pytest.raises(BlockingIOError):
        other.recv(100)


def test_what_the_system_does_not_take_is_kept(pair):
    own, other = pair
    transport, data = LateTransport(own), bytes(range(256)) * 20_000
    write = outlet(transport)
    write(data)
    write(b"the end")
    sent = len(data) - len(transport.kept[0])
    assert 0 < sent < len(data)
    arrived = b""
    while len(arrived) < sent:
        arrived += other.recv(1 << 20)
    assert arrived + b"".join(transport.kept) == data + b"the end"


def test_a_connection_that_has_broken_is_the_transports_to_find(pair):
    own, other = pair
    transport = LateTransport(own)
    other.close()
    outlet(transport)(b"for nobody")
    assert transport.kept == [b"for nobody"]


def test_nothing_is_written_once_the_transport_closes(pair):
    own, other = pair
    transport = LateTransport(own)
    write = outlet(transport)
    transport.closing = True
    write(b"too late")
    assert transport.kept == []
    with pytest.raises(BlockingIOError):
        other.recv(100)


def test_only_a_transport_can_encrypt(pair):
    own, other = pair
    transport = LateTransport(own, tls=True)
    write = outlet(transport)
    write(b"secret")
    assert transport.kept == [b"secret"]
    with pytest.raises(BlockingIOError):
        other.recv(100)
    transport.closing = True
    write(b"too late")
    assert transport.kept == [b"secret"]
