"""Which header fields a proxy passes on, and which were for its own ears. Pure.

Some fields are about one connection, by their nature or because ``Connection`` names them; they end at whoever reads
them. A request to change the protocol is the one of them that a proxy makes anew. Source: RFC 9110, 7.6.1 and 7.8.
"""

from collections.abc import Iterable, Iterator, Sequence

Fields = Sequence[tuple[str, str]]

_OF_ONE_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip


def _options(fields: Fields) -> Iterator[str]:
    """Yield what ``Connection`` lists, in small letters."""
    for name, value in fields:
        if name.lower() == "connection":
            yield from (option.strip().lower() for option in value.split(","))


def end_to_end(fields: Fields, *, without: Iterable[str] = ()) -> Fields:
    """Return the fields that are meant for the far end; ``without``: names in small letters that are not, either."""
    left_out = _OF_ONE_HOP.union(_options(fields), without)
    return [(name, value) for name, value in fields if name.lower() not in left_out]


def upgrade_of(fields: Fields) -> str:
    """Return the protocols that a request asks to change to, or that an answer changes to; "" for none."""
    if "upgrade" not in _options(fields):
        return ""
    return ", ".join(value for name, value in fields if name.lower() == "upgrade")


def hop(upgrade: str) -> Fields:
    """Return the fields about the next connection: it becomes something else, or ends with the answer."""
    return [("Connection", "Upgrade"), ("Upgrade", upgrade)] if upgrade else [("Connection", "close")]
