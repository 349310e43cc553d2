"""Header compression (RFC 7541).

Peers repeat themselves: one client's calls differ in few headers or in none. So there are three ways to read a block,
and nearly every block takes the first one:

1. A block that was seen before, while nothing in the dynamic table has changed since, means what it meant then: one
   look-up in a dictionary.
2. Fields that refer to a table are one list access each; Huffman-coded strings that were seen before, one look-up.
3. Fresh Huffman-coded strings go through a state machine that takes a byte a step. Its steps are worked out when they
   are first needed, for the whole of it would take long to build and few bytes occur in headers.

What is remembered is bounded in number and size, so a peer that never repeats itself costs time, not memory.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Generic, TypeVar

Field = tuple[bytes, bytes]  # name in lower case, value
Fields = tuple[Field, ...]
T = TypeVar("T")

ENTRY_OVERHEAD = 32  # what the standard adds to the length of each field for its accounts
DEFAULT_TABLE_BYTES = 4096
MAX_INTEGER = (1 << 31) - 1
MAX_REMEMBERED = 512
MAX_REMEMBERED_BYTES = 1024  # of one block or string
MAX_MEANT_BYTES = 128 << 10  # of all the lists that remembered blocks stand for: a byte may be kilobytes


class HpackError(Exception):
    """The block cannot be decoded; both tables may differ from now on, so the connection has to end."""


class HeadersTooLarge(Exception):
    """The block is in order, and decoded, but longer than we take."""


_AUTHORITY_TO_STATUS = """
:authority, :method GET, :method POST, :path /, :path /index.html, :scheme http, :scheme https, :status 200,
:status 204, :status 206, :status 304, :status 400, :status 404, :status 500
"""
_NAMES = """
accept-charset, accept-encoding gzip|deflate, accept-language, accept-ranges, accept, access-control-allow-origin, age,
allow, authorization, cache-control, content-disposition, content-encoding, content-language, content-length,
content-location, content-range, content-type, cookie, date, etag, expect, expires, from, host, if-match,
if-modified-since, if-none-match, if-range, if-unmodified-since, last-modified, link, location, max-forwards,
proxy-authenticate, proxy-authorization, range, referer, refresh, retry-after, server, set-cookie,
strict-transport-security, transfer-encoding, user-agent, vary, via, www-authenticate
"""


def _rows(text: str) -> list[Field]:
    rows = []
    for row in text.split(","):
        name, _, value = row.strip().partition(" ")
        rows.append((name.encode(), value.replace("|", ", ").encode()))
    return rows


STATIC_TABLE: Fields = tuple(_rows(_AUTHORITY_TO_STATUS) + _rows(_NAMES))  # appendix A; index 1 is the first
_STATIC_FIELDS = {field: index for index, field in reversed(list(enumerate(STATIC_TABLE, 1)))}
_STATIC_NAMES = {field[0]: index for index, field in reversed(list(enumerate(STATIC_TABLE, 1)))}
_FIRST_DYNAMIC = len(STATIC_TABLE) + 1

# Appendix B. The code is canonical, so the lengths say everything: shorter codes come first, equal ones by symbol.
_EOS = 256
# fmt: off
_CODE_LENGTHS = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15,
    6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22,
    20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23,
    23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22,
    22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26,
    27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27,
    26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
)
# fmt: on


def _canonical_codes() -> tuple[int, ...]:
    codes = [0] * len(_CODE_LENGTHS)
    code = length = 0
    for symbol in sorted(range(len(_CODE_LENGTHS)), key=lambda symbol: (_CODE_LENGTHS[symbol], symbol)):
        code <<= _CODE_LENGTHS[symbol] - length
        length = _CODE_LENGTHS[symbol]
        codes[symbol] = code
        code += 1
    return tuple(codes)


_CODES = _canonical_codes()
# The bits of a code, or of a part of one, with a 1 before them: so that leading zeros count.
_SYMBOLS = {1 << length | code: symbol for symbol, (code, length) in enumerate(zip(_CODES, _CODE_LENGTHS, strict=True))}
_START = 1
_PAST_PADDING = 1 << 8  # padding is at most seven ones
_steps: dict[int, tuple[bytes, int]] = {}  # state << 8 | byte -> (what is complete then, state after it)


def _step(state: int, byte: int) -> tuple[bytes, int]:
    key = state << 8 | byte
    complete = bytearray()
    for shift in range(7, -1, -1):
        state = state << 1 | (byte >> shift & 1)
        symbol = _SYMBOLS.get(state)
        if symbol is not None:
            if symbol == _EOS:
                raise HpackError("the end-of-string symbol stands inside a string")
            complete.append(symbol)
            state = _START
    step = _steps[key] = bytes(complete), state
    return step


def huffman_decode(data: bytes) -> bytes:
    """Return the string that ``data`` codes; raises HpackError."""
    state = _START
    parts: list[bytes] = []
    steps = _steps
    for byte in data:
        complete, state = steps.get(state << 8 | byte) or _step(state, byte)
        parts.append(complete)
    if state >= _PAST_PADDING or state & (state + 1):
        raise HpackError("a string does not end with the padding prescribed")
    return b"".join(parts)


MAX_HUFFMAN_BYTES = 1024  # of a string; the code is one growing number, which takes the square of its length


@lru_cache(MAX_REMEMBERED)
def huffman_encode(data: bytes) -> bytes:
    """Return ``data`` in Huffman code, padded to whole bytes."""
    bits = size = 0
    for byte in data:
        length = _CODE_LENGTHS[byte]
        bits = bits << length | _CODES[byte]
        size += length
    padding = -size % 8
    return (bits << padding | (1 << padding) - 1).to_bytes((size + padding) // 8, "big")


def encode_integer(value: int, prefix_bits: int, first: int) -> bytes:
    """Return ``value`` in the form of section 5.1; ``first`` holds the bits before the prefix."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes((first | value,))
    out = bytearray((first | most,))
    value -= most
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _decode_integer(block: bytes, at: int, prefix_bits: int) -> tuple[int, int]:
    """Return (value, where it ends). Raises IndexError if the block ends before."""
    most = (1 << prefix_bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 127) << shift
        if value > MAX_INTEGER or shift > 28:
            raise HpackError("an integer is too large")
        if byte < 128:
            return value, at
        shift += 7


class _Table:
    """A dynamic table: the fields inserted last, as many as fit."""

    def __init__(self) -> None:
        self.fields: list[Field] = []  # oldest first
        self.bytes = 0
        self.max_bytes = DEFAULT_TABLE_BYTES
        self.dropped = 0  # fields inserted before fields[0], ever

    def insert(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
        self.shrink(self.max_bytes - size)
        if size <= self.max_bytes:
            self.fields.append(field)
            self.bytes += size
        else:
            self.dropped += 1  # a field larger than the table empties it, and is not kept

    def shrink(self, to_bytes: int) -> None:
        """Drop the oldest fields until the rest takes no more than ``to_bytes``."""
        fields, count = self.fields, 0
        while self.bytes > to_bytes and count < len(fields):
            name, value = fields[count]
            self.bytes -= len(name) + len(value) + ENTRY_OVERHEAD
            count += 1
        if count:
            del fields[:count]
            self.dropped += count

    def resize(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.shrink(max_bytes)


class Decoder(Generic[T]):
    """Reads the blocks of one direction of one connection, in order.

    interpret: a pure function of the fields; what it returns is remembered with the block.
    max_list_bytes: of the decoded fields, each counted with its overhead.
    """

    def __init__(self, interpret: Callable[[Fields], T], *, max_list_bytes: int, table_bytes: int = 4096) -> None:
        self._interpret = interpret
        self._max_list_bytes = max_list_bytes
        self._allowed_table_bytes = table_bytes  # what our settings allow the peer
        self._table = _Table()
        self._known: dict[bytes, T] = {}  # whole blocks, valid while the table stays as it is
        self._known_bytes = 0  # of the lists that they stand for
        self.known = self._known.get  # what ``decode`` would return, if it has met the block before; nothing changes
        self._strings: dict[bytes, bytes] = {}

    def decode(self, block: bytes) -> T:
        """Return what ``interpret`` makes of the fields; raises HpackError, HeadersTooLarge."""
        known = self._known.get(block)
        if known is not None:
            return known
        try:
            fields, size, changed = self._fields(block)
        except IndexError:
            raise HpackError("a block ends inside a field") from None
        if size > self._max_list_bytes:
            raise HeadersTooLarge(f"{size} bytes of headers; the most is {self._max_list_bytes}")
        result = self._interpret(tuple(fields))
        if not changed and len(block) <= MAX_REMEMBERED_BYTES:
            self._known_bytes += size
            if len(self._known) >= MAX_REMEMBERED or self._known_bytes > MAX_MEANT_BYTES:
                self._forget()
                self._known_bytes = size
            self._known[block] = result
        return result

    def _forget(self) -> None:
        self._known.clear()
        self._known_bytes = 0

    def _fields(self, block: bytes) -> tuple[list[Field], int, bool]:
        """Return the fields up to the most that we take, the size of all, and whether the table changed."""
        fields: list[Field] = []
        at, end, size, changed = 0, len(block), 0, False
        most = self._max_list_bytes
        while at < end:
            first = block[at]
            if first >= 0x80:
                if first == 0xFF:
                    index, at = _decode_integer(block, at, 7)
                else:
                    index, at = first & 0x7F, at + 1
                field = self._look_up(index)
            elif first & 0xE0 == 0x20:
                if fields:
                    raise HpackError("the table's size changes in the middle of a block")
                at = self._resize(block, at)
                changed = True
                continue
            else:
                indexed = first >= 0x40
                field, at = self._literal(block, at, 6 if indexed else 4)
                if indexed:
                    self._table.insert(field)
                    self._forget()
                    changed = True
            size += len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
            if size <= most:
                fields.append(field)
        return fields, size, changed

    def _look_up(self, index: int) -> Field:
        if index < _FIRST_DYNAMIC:
            if index == 0:
                raise HpackError("there is no field 0")
            return STATIC_TABLE[index - 1]
        fields = self._table.fields
        place = len(fields) - 1 - (index - _FIRST_DYNAMIC)
        if place < 0:
            raise HpackError(f"there is no field {index}")
        return fields[place]

    def _literal(self, block: bytes, at: int, prefix_bits: int) -> tuple[Field, int]:
        index, at = _decode_integer(block, at, prefix_bits)
        if index:
            name = self._look_up(index)[0]
        else:
            name, at = self._string(block, at)
        value, at = self._string(block, at)
        return (name, value), at

    def _string(self, block: bytes, at: int) -> tuple[bytes, int]:
        huffman = block[at] & 0x80
        length, at = _decode_integer(block, at, 7)
        end = at + length
        if end > len(block):
            raise HpackError("a string is longer than its block")
        raw = block[at:end]
        if not huffman:
            return raw, end
        known = self._strings.get(raw)
        if known is None:
            known = huffman_decode(raw)
            if length <= MAX_REMEMBERED_BYTES:
                if len(self._strings) >= MAX_REMEMBERED:
                    self._strings.clear()
                self._strings[raw] = known
        return known, end

    def _resize(self, block: bytes, at: int) -> int:
        size, at = _decode_integer(block, at, 5)
        if size > self._allowed_table_bytes:
            raise HpackError(f"a table of {size} bytes; {self._allowed_table_bytes} are allowed")
        self._table.resize(size)
        self._forget()
        return at


# Values that differ from call to call would only push useful fields out of the table.
VOLATILE = frozenset({b"grpc-timeout", b"grpc-message", b"grpc-status-details-bin", b"content-length"})
# Fields that no intermediary may put into a table either (section 7.1.3).
SECRET = frozenset({b"authorization", b"cookie", b"set-cookie", b"proxy-authorization", b"token"})


class Encoder:
    """Writes the blocks of one direction of one connection, in order."""

    def __init__(self) -> None:
        self._table = _Table()
        self._numbers: dict[Field, int] = {}  # field -> its number in the order of insertion, for those in the table
        self._known: dict[Fields, bytes] = {}  # valid while the table stays as it is
        self._sizes: list[int] = []  # changes of the table's size that the next block has to announce
        self.age = 0  # grows whenever blocks may come out otherwise than before

    def allow(self, table_bytes: int) -> None:
        """The peer's settings allow a dynamic table of so many bytes; more than the usual is not used."""
        size = min(table_bytes, DEFAULT_TABLE_BYTES)
        if size != (self._sizes[-1] if self._sizes else self._table.max_bytes):
            # Of several changes between two blocks the smallest and the last matter (section 4.2).
            lowest = min([size, *self._sizes])
            self._sizes = [size] if size == lowest else [lowest, size]
            self._forget()

    def encode(self, fields: Fields) -> bytes:
        """Return the block for ``fields``."""
        known = self._known.get(fields)
        if known is not None:
            return known
        parts: list[bytes] = []
        changed = bool(self._sizes)
        for size in self._sizes:
            self._table.resize(size)
            parts.append(encode_integer(size, 5, 0x20))
        self._sizes = []
        for field in fields:
            inserted_before = self._table.dropped + len(self._table.fields)
            parts.append(self._field(field))
            changed = changed or self._table.dropped + len(self._table.fields) != inserted_before
        block = b"".join(parts)
        if changed:
            self._forget()
        elif len(block) <= MAX_REMEMBERED_BYTES:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[fields] = block
        return block

    def _forget(self) -> None:
        self._known.clear()
        self.age += 1

    def _field(self, field: Field) -> bytes:
        name, value = field
        index = _STATIC_FIELDS.get(field)
        if index is None:
            number = self._numbers.get(field)
            if number is not None and number >= self._table.dropped:
                newest = self._table.dropped + len(self._table.fields) - 1
                index = _FIRST_DYNAMIC + newest - number
        if index is not None:
            return encode_integer(index, 7, 0x80)
        if name in SECRET:
            return self._literal(field, 4, 0x10)
        if name in VOLATILE or len(name) + len(value) + ENTRY_OVERHEAD > self._table.max_bytes // 2:
            return self._literal(field, 4, 0x00)
        literal = self._literal(field, 6, 0x40)
        self._insert(field)
        return literal

    def _insert(self, field: Field) -> None:
        table = self._table
        table.insert(field)
        self._numbers[field] = table.dropped + len(table.fields) - 1
        if len(self._numbers) > MAX_REMEMBERED:
            self._numbers = {kept: number for kept, number in self._numbers.items() if number >= table.dropped}

    def _literal(self, field: Field, prefix_bits: int, first: int) -> bytes:
        name, value = field
        index = _STATIC_NAMES.get(name, 0)
        head = encode_integer(index, prefix_bits, first)
        return b"".join((head, b"" if index else _string(name), _string(value)))


def _string(text: bytes) -> bytes:
    coded = huffman_encode(text) if len(text) <= MAX_HUFFMAN_BYTES else text
    if len(coded) < len(text):
        return encode_integer(len(coded), 7, 0x80) + coded
    return encode_integer(len(text), 7, 0x00) + text


def list_bytes(fields: Iterable[Field]) -> int:
    """Return the size of a header list as the limits count it."""
    return sum(len(name) + len(value) + ENTRY_OVERHEAD for name, value in fields)
