"""Messages in protobuf's JSON form, taken as strictly as etcd's gateway takes them.

Protobuf's own parser is too kind to store what it makes of a mistake: of text that is no base64 it makes bytes all the
same, and the name of an unknown enum value counts as absent where unknown fields are ignored. A permission to write
would become one to read.
"""

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

_DIGITS = re.compile(rb"[A-Za-z0-9+/]*")  # of base64
_PADDING = (b"", None, b"==", b"=")  # behind so many digits, without whole fours of them; None: there is no such text
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_INTEGERS: Mapping[int, str] = {
    FieldDescriptor.CPPTYPE_INT32: "int32",
    FieldDescriptor.CPPTYPE_INT64: "int64",
    FieldDescriptor.CPPTYPE_UINT32: "uint32",
    FieldDescriptor.CPPTYPE_UINT64: "uint64",
}
_BLANKS = " \t\r\n"  # JSON's
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_IN_TEXT = re.compile(rb'"|\\.', re.DOTALL)  # what matters there, and so on
_INSIDE = re.compile(rb'["{}\[\]]')
_BETWEEN = re.compile(rb'["{}\[\]]|[ \t\r\n]+')
_KINDS: Mapping[type, str] = {  # as Go calls them
    dict: "object",
    list: "array",
    str: "string",
    bool: "bool",
    int: "number",
    float: "number",
    type(None): "null",
}
_DECODER = json.JSONDecoder()


class Cutter:
    """Cuts what arrives in pieces into JSON values. It looks at each byte once, however small the pieces are."""

    def __init__(self) -> None:
        self._begun = bytearray()  # a value that has not ended
        self._depth = 0  # of brackets and braces
        self._in_text = False
        self._backslash = b""  # what it stands before is to come

    @property
    def size(self) -> int:
        """Return how many bytes wait for more."""
        return len(self._begun)

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the values that end in ``piece``; whether they are any, ``read`` will find out."""
        piece, self._backslash = self._backslash + piece, b""
        values: list[bytes] = []
        begin = at = 0
        while (mark := self._pattern().search(piece, at)) is not None:
            at = mark.end()
            cuts = self._follow(mark[0])
            if cuts is not None:
                end = at if cuts else mark.start()
                values += self._cut(piece[begin:end])
                begin = end
        if self._in_text and piece.endswith(b"\\", at):
            piece, self._backslash = piece[:-1], b"\\"
        self._begun += piece[begin:]
        return values

    def rest(self) -> bytes:
        """Return what is left when nothing comes any more: a number, or a value that has no end."""
        return bytes(self._begun).strip()

    def _pattern(self) -> re.Pattern[bytes]:
        if self._in_text:
            return _IN_TEXT
        return _INSIDE if self._depth else _BETWEEN

    def _follow(self, mark: bytes) -> bool | None:
        """Go on behind ``mark``; return whether a value ends behind it (True), before it (False), or not (None)."""
        if self._in_text:
            self._in_text = mark != b'"'
            return None if self._in_text or self._depth else True
        outside = not self._depth
        if mark == b'"':
            self._in_text = True
        elif mark in (b"{", b"["):
            self._depth += 1
        elif mark in (b"}", b"]"):
            self._depth = max(self._depth - 1, 0)
            return None if self._depth else True
        return False if outside else None

    def _cut(self, end: bytes) -> list[bytes]:
        value = bytes(self._begun + end).strip()
        self._begun.clear()
        return [value] if value else []


def read(text: bytes, message: Message) -> None:
    """Fill ``message`` from JSON. Raises ValueError saying what is wrong, in etcd's words where it has simple ones.

    Fields that the message has not are ignored, so is what follows the value; nothing at all, or null, is an empty
    message: as in etcd.
    """
    # What is no UTF-8 becomes a mark of that in names, and is no base64 anywhere else.
    known = text.decode("utf-8", "replace").lstrip(_BLANKS)
    try:
        value, _ = _DECODER.raw_decode(known) if known else (None, 0)
        if _SURROGATE.search(known):
            value = _without_halves(value)
        _check(value, cast("Descriptor", message.DESCRIPTOR))
        json_format.ParseDict(value or {}, message, ignore_unknown_fields=True)
    except json_format.ParseError as exc:
        raise ValueError(str(exc)) from exc
    except RecursionError as exc:
        raise ValueError("exceeded max depth") from exc


def _without_halves(value: Any) -> Any:
    """Return ``value`` with a mark for each surrogate that stands alone, as Go reads it; protobuf fails over them."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))


def _check(value: Any, message: Descriptor) -> None:
    """Raise ValueError if what a message's JSON says would be taken for something else."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise _unfit(value, "map[string]json.RawMessage")
    fields = _fields(message)
    for name, inner in value.items():
        field = fields.get(name)
        if field is None or inner is None:
            continue
        items = inner if field.is_repeated and isinstance(inner, list) else (inner,)
        for item in items:
            if field.message_type is not None:
                _check(item, field.message_type)
            elif field.enum_type is not None:
                _check_enum(item, field.enum_type)
            elif field.type == FieldDescriptor.TYPE_BYTES:
                _check_base64(item)
            elif field.cpp_type in _INTEGERS:
                _check_integer(item, _INTEGERS[field.cpp_type])


@functools.cache
def _fields(message: Descriptor) -> Mapping[str, FieldDescriptor]:
    """Return the fields by both their names."""
    return {field.name: field for field in message.fields} | {field.json_name: field for field in message.fields}


def _check_enum(value: Any, enum: EnumDescriptor) -> None:
    if type(value) is int:
        return
    package = enum.file.package
    name = enum.full_name.removeprefix(f"{package}.").replace(".", "_")
    if not isinstance(value, str):
        raise _unfit(value, f"{package}.{name}")
    if value not in enum.values_by_name:
        raise ValueError(f"unknown value {json.dumps(value)} for enum {package}.{name}")


def _check_integer(value: Any, kind: str) -> None:
    """Python would take 1_0, +1 and 1.0 for numbers, too."""
    if type(value) is not int and not (isinstance(value, str) and _INTEGER.fullmatch(value)):
        raise _unfit(value, kind)


def _check_base64(value: Any) -> None:
    if not isinstance(value, str):
        raise _unfit(value, "[]uint8")
    raw = value.encode("utf-8", "replace").translate(None, b"\r\n")  # line ends may be anywhere
    digits = _DIGITS.match(raw)
    assert digits is not None, "it matches no bytes, too"
    at = digits.end()
    padding = _PADDING[at % 4]
    if padding is not None and raw[at:] == padding:
        return
    if padding and raw.startswith(padding, at):
        at += len(padding)  # behind which nothing may follow, whatever it is
    elif at == len(raw):
        at -= at % 4
    raise ValueError(f"illegal base64 data at input byte {at}")


def _unfit(value: Any, wanted: str) -> ValueError:
    return ValueError(f"json: cannot unmarshal {_KINDS[type(value)]} into Go value of type {wanted}")
