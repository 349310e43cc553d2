"""One logical connection to the masters: stick to one that answers, go to the next when it does not.

Every master serves the same objects under the same revisions, so it does not matter which one answers. A call ends in
one of three ways: an answer; a refusal by a master (``ApiError``, from the Status in the trailing metadata); or
``Lost``, which says whether the call may have been carried out all the same. A process that is killed is noticed at
once, since its connections break; a host that falls silent after two seconds, by HTTP/2 pings.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import grpc
import msgspec.json

from api import errors
from api.errors import ApiError, Fault, Unavailable
from client.clock import Clock, SystemClock
from client.etcd_types import TlsFiles
from trireme_pb.cluster import cluster_pb2 as pb
from trireme_pb.cluster import cluster_pb2_grpc as rpc

STATUS_KEY = "trireme-status-bin"
ATTEMPT_S = 5.0  # a master that is alive answers sooner, even while the store elects a leader
ROUND_PAUSE_S = 0.05  # after every master was tried in vain; doubles up to the longest
LONGEST_PAUSE_S = 0.5
OPTIONS = (
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 500),  # also how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", 1 << 20),  # a refusal, which comes in there, tells of all that is wrong with an object
    ("grpc.absolute_max_metadata_size", 1 << 20),
    ("grpc.enable_retries", 0),  # we know better than the library what may be sent twice
    ("grpc.use_local_subchannel_pool", 1),
)

__all__ = ["Lost", "MasterChannel", "Retrying", "TlsFiles"]

log = logging.getLogger(__name__)


class Lost(Exception):
    """No master answered; ``maybe_applied``: the call may have been carried out."""

    def __init__(self, reason: str, *, maybe_applied: bool) -> None:
        super().__init__(reason)
        self.maybe_applied = maybe_applied


_CLASSES = {each.reason: each for each in errors.ALL}


def refusal_of(error: grpc.aio.AioRpcError) -> ApiError | None:
    """Return the refusal that a master packed into the call's trailing metadata, None if no master spoke."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_KEY:
            return _refusal(msgspec.json.decode(pb.Error.FromString(cast("bytes", value)).status_json))
    return None


def _refusal(status: dict[str, Any]) -> ApiError:
    details = status.get("details") or {}
    causes = [
        Fault(each.get("field", ""), each.get("message", ""), each.get("reason", ""))
        for each in details.get("causes") or ()
    ]
    make = _CLASSES.get(status.get("reason", ""), errors.InternalError)
    return make(
        status.get("message", ""),
        group=details.get("group", ""),
        kind=details.get("kind", ""),
        name=details.get("name", ""),
        uid=details.get("uid", ""),
        causes=causes,
        retry_after_s=details.get("retryAfterSeconds", 0),
    )


def lost_by(error: grpc.aio.AioRpcError) -> Lost | None:
    """Return what a failure of the transport says of the call; None if it is no failure of the transport."""
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        # Before there is a connection nothing has been sent; a connection that breaks may have carried the call.
        never_sent = "failed to connect" in details or "Connection refused" in details
        return Lost(details, maybe_applied=not never_sent)
    if code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN):
        return Lost(details or code.name, maybe_applied=True)
    return None


def failure_of(error: grpc.aio.AioRpcError) -> ApiError:
    """Return what a failure means that is neither a master's refusal nor the transport's: its server's, mostly.

    A server that is spent says so before it has begun the call; what is too large will be so next time. Of an answer
    whose fields our own library does not take nobody knows what it was.
    """
    details = error.details() or ""
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "metadata size" not in details:
        kind = errors.RequestTooLarge if "larger than max" in details else errors.TooManyRequests
        return kind(details)
    return errors.InternalError(f"{error.code().name}: {details}")


class _Master:
    """The channel and stubs of one master; ``streams`` are the watches that it serves."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.channel = channel
        self.resources: Any = rpc.ResourcesStub(channel)
        self.lab: Any = rpc.LabStub(channel)
        self.streams: dict[Any, None] = {}


class MasterChannel:
    """Calls whichever master answers.

    masters: ``ip:port`` of each; the first to answer is kept until it fails. tls: None speaks plain text (tests only).
    """

    def __init__(
        self,
        masters: Sequence[str],
        tls: TlsFiles | None = None,
        *,
        clock: Clock | None = None,
        attempt_s: float = ATTEMPT_S,
    ) -> None:
        if not masters:
            raise ValueError("masters is empty: write the masters' gRPC addresses")
        self._clock = clock or SystemClock()
        self._attempt_s = attempt_s
        credentials = _credentials(tls) if tls is not None else None
        self._masters = [_Master(each, _open(each, credentials)) for each in masters]
        self._current = 0

    @property
    def current(self) -> str:
        """Return the address of the master that is asked now."""
        return self._masters[self._current].address

    def retrying(self, patience_s: float) -> "Retrying":
        """Return the spacing of attempts on these masters."""
        return Retrying(self._clock, len(self._masters), patience_s)

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(each.channel.close() for each in self._masters))

    async def unary(
        self, method: str, request: Any, *, service: str = "resources", attempt_s: float | None = None
    ) -> Any:
        """Make one attempt on the current master; raises ApiError or Lost, after which the next goes elsewhere."""
        master = self._masters[self._current]
        stub = getattr(getattr(master, service), method)
        try:
            return await stub(request, timeout=attempt_s or self._attempt_s)
        except grpc.aio.AioRpcError as error:
            raise self._failure(master, error) from error

    def _failure(self, master: _Master, error: grpc.aio.AioRpcError) -> Exception:
        """Return what to raise for ``error``; a master that is of no use now is left."""
        refusal = refusal_of(error)
        if refusal is not None:
            if isinstance(refusal, Unavailable):
                self._leave(master, refusal.message)
            return refusal
        lost = lost_by(error)
        if lost is None:
            return failure_of(error)
        self._leave(master, str(lost))
        return lost

    def _leave(self, master: _Master, why: str) -> None:
        """Let the next calls go to the next master, and the watches of this one follow."""
        if self._masters[self._current] is not master or len(self._masters) == 1:
            return
        self._current = (self._current + 1) % len(self._masters)
        log.info("master left from=%s to=%s why=%r", master.address, self.current, why)
        for stream in tuple(master.streams):
            stream.cancel()

    async def stream(self, method: str, request: Any, *, silent_s: float) -> AsyncIterator[Any]:
        """Yield the messages of one stream of the current master.

        Raises ApiError or Lost; also Lost when nothing came for ``silent_s``, or when the channel left that master.
        """
        master = self._masters[self._current]
        call = getattr(master.resources, method)(request)
        master.streams[call] = None
        try:
            while True:
                try:
                    async with asyncio.timeout(silent_s):
                        message = await call.read()
                except TimeoutError:
                    raise Lost("the stream fell silent", maybe_applied=False) from None
                if message is grpc.aio.EOF:
                    return
                yield message
        except grpc.aio.AioRpcError as error:
            raise self._failure(master, error) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Lost("the master was left", maybe_applied=False) from None
        finally:
            master.streams.pop(call, None)
            call.cancel()


class Retrying:
    """Spaces attempts: none between masters that were not tried yet, growing pauses after each round."""

    def __init__(self, clock: Clock, masters: int, patience_s: float) -> None:
        self._clock = clock
        self._masters = masters
        self._until = clock.monotonic() + patience_s
        self._tries = 0

    async def next(self) -> bool:
        """Wait as long as is due; return False if patience is over."""
        self._tries += 1
        rounds, within = divmod(self._tries, self._masters)
        if within == 0:
            pause_s = min(ROUND_PAUSE_S * 2 ** min(rounds - 1, 8), LONGEST_PAUSE_S)
            await self._clock.sleep(pause_s)
        return self._clock.monotonic() < self._until


def _open(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(address, OPTIONS)
    return grpc.aio.secure_channel(address, credentials, OPTIONS)


def _credentials(tls: TlsFiles) -> grpc.ChannelCredentials:
    """Read the files; raises OSError."""
    return grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.cert.read_bytes())
