"""How much of what was sent the other end has taken: its kernel tells ours, however silent it is itself."""

import socket
import struct
from typing import NamedTuple

# Linux's ``tcp_info``: packets on their way, bytes acknowledged so far, bytes that are not sent yet.
_INFO = struct.Struct("=24xI92xQ16xI")


class Uptake(NamedTuple):
    """A connection at one moment."""

    acknowledged_bytes: int  # ever; a kernel acknowledges what it has room for, and that has an end if nobody reads
    waiting: bool  # whether anything is still to be acknowledged


def uptake_of(connection: socket.socket | None) -> Uptake | None:
    """Return how far the other end is; None: nobody knows, for this is no TCP, or another kernel's."""
    if connection is None or not hasattr(socket, "TCP_INFO"):
        return None
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except (OSError, ValueError):  # uvloop says the latter of a connection that was just closed
        return None
    if len(told) < _INFO.size:
        return None
    on_their_way, acknowledged_bytes, unsent_bytes = _INFO.unpack(told)
    return Uptake(acknowledged_bytes, on_their_way > 0 or unsent_bytes > 0)
