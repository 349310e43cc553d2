"""The two ways in which a client turns a request into streams: SPDY/3.1 and websockets."""

from collections.abc import Sequence

from aiohttp import web

from api.errors import BadRequest, Forbidden
from master.rest.duplex import RawConnection, take_over


def wants_websocket(request: web.BaseRequest) -> bool:
    """Return whether the request asks for a websocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def offered_subprotocols(request: web.BaseRequest) -> tuple[str, ...]:
    """Return the websocket subprotocols that the client offers, in its order."""
    text = ",".join(request.headers.getall("Sec-WebSocket-Protocol", []))
    return tuple(filter(None, (each.strip() for each in text.split(","))))


def check_spdy(request: web.BaseRequest) -> None:
    """Raise BadRequest unless the request asks for SPDY/3.1."""
    if request.headers.get("Upgrade", "").lower() != "spdy/3.1":
        raise BadRequest("Upgrade request required")


def pick_spdy_protocol(request: web.BaseRequest, supported: Sequence[str]) -> str:
    """Return the first stream protocol in the client's order that is supported.

    One that names none speaks the oldest. Raises Forbidden if none fits.
    """
    offered = [
        each.strip()
        for header in request.headers.getall("X-Stream-Protocol-Version", [])
        for each in header.split(",")
        if each.strip()
    ]
    if not offered:
        return ""
    for each in offered:
        if each in supported:
            return each
    raise Forbidden(
        f"unable to upgrade: unable to negotiate protocol: client supports {offered}, server accepts {list(supported)}"
    )


def take_over_spdy(request: web.BaseRequest, protocol: str) -> RawConnection:
    """Switch the connection to SPDY/3.1."""
    lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: SPDY/3.1"]
    if protocol:
        lines.append(f"X-Stream-Protocol-Version: {protocol}")
    return take_over(request, ("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
