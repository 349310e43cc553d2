"""How bytes leave a connection: at once, if nothing waits before them.

uvloop keeps what it is given until its turn is over. Who asks somebody else, or promises something, in the middle of a
turn full of work of its own would not let them wait for the rest of it.
"""

import asyncio
import os
from collections.abc import Callable


def outlet(transport: asyncio.Transport) -> Callable[[bytes], None]:
    """Return what writes to ``transport``: nothing once it closes, and later what the system does not take now."""
    made = transport.get_extra_info("socket")
    if made is None or transport.get_extra_info("sslcontext") is not None:

        def hand_on(data: bytes) -> None:
            if not transport.is_closing():  # uvloop, unlike asyncio, refuses to write then
                transport.write(data)

        return hand_on
    descriptor = made.fileno()

    def write(data: bytes) -> None:
        if transport.is_closing():  # and its descriptor may be somebody else's soon
            return
        if transport.get_write_buffer_size():
            transport.write(data)
            return
        try:
            sent = os.write(descriptor, data)
        except OSError:
            sent = 0  # no room; or whatever it is, the transport comes upon it too, and ends
        if sent < len(data):
            transport.write(data[sent:])

    return write
