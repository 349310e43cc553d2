"""What a connection tells of what came in, and what it grants."""

import msgspec

from .headers import Headers


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one side grants the other."""

    streams: int = 10_000  # at once
    window_bytes: int = 1 << 20  # sent ahead on one stream; 65,535 at least
    connection_window_bytes: int = 16 << 20  # and on all together
    frame_bytes: int = 1 << 16
    header_list_bytes: int = 64 << 10  # decoded; beyond it a stream is refused
    header_block_bytes: int = 256 << 10  # on the wire, all CONTINUATIONs together; beyond it the connection ends
    nuisances: int = 10_000  # frames that bring nothing: so many at once
    nuisances_per_s: float = 1_000.0


class HeadersReceived(msgspec.Struct, gc=False):
    """A request came (as the server), or a response (as the client)."""

    stream: int
    headers: Headers
    ended: bool


class DataReceived(msgspec.Struct, gc=False):
    """Data came; tell ``consumed`` when it is. Trailers after it come as an event of their own."""

    stream: int
    data: bytes
    ended: bool


class RequestsReceived(msgspec.Struct):
    """Requests came whole, as the server: all with these headers, and each with all of its data, which ends it.

    It stands for HeadersReceived and DataReceived, which tell the same whenever a request comes in pieces.
    """

    headers: Headers
    streams: list[int]
    contents: list[bytes]  # of each stream


class TrailersReceived(msgspec.Struct, gc=False):
    """The peer's half of the stream ended with these."""

    stream: int
    headers: Headers


class StreamEnded(msgspec.Struct, gc=False):
    """The stream is gone before its time: reset by the peer, or by us because of its fault."""

    stream: int
    code: int
    reason: str


class SendProgress(msgspec.Struct, gc=False):
    """Everything that waited on this stream went out."""

    stream: int


class PingAcknowledged(msgspec.Struct, gc=False):
    """Our ping came back."""

    payload: bytes


class GoAwayReceived(msgspec.Struct, gc=False):
    """The peer takes no new streams; those above ``last_stream`` it did not look at."""

    last_stream: int
    code: int
    reason: bytes


class ConnectionEnded(msgspec.Struct, gc=False):
    """The connection is over, for the peer's fault; send the output and hang up."""

    code: int
    reason: str


Event = (
    HeadersReceived
    | DataReceived
    | RequestsReceived
    | TrailersReceived
    | StreamEnded
    | SendProgress
    | PingAcknowledged
    | GoAwayReceived
    | ConnectionEnded
)
