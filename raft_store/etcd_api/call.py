"""What a call brings besides its messages, whichever front took it in."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from .errors import RpcError

_NOTHING: Mapping[str, str] = MappingProxyType({})


class CallContext(msgspec.Struct, frozen=True):
    """Who calls, and under which wishes."""

    metadata: Mapping[str, str] = _NOTHING  # lower-case name -> its first value
    common_name: str = ""  # of the client's verified certificate; empty: it showed none

    @property
    def token(self) -> str | None:
        """Return the token that an earlier Authenticate gave out."""
        return self.metadata.get("token") or self.metadata.get("authorization")

    @property
    def wants_leader(self) -> bool:
        """Return whether the call must fail while there is no leader."""
        return self.metadata.get("hasleader") == "true"


Finish = Callable[[bytes | None, RpcError | None], None]  # takes the encoded answer, or what the call fails with

NO_CONTEXT = CallContext()
