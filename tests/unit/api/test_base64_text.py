"""Base64 as the real server reads it."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import codec
from api.base64_text import IllegalBase64, canonical, decode
from api.errors import BadRequest
from api.kinds.table import TABLE


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", b""),
        ("YQ==", b"a"),
        ("YR==", b"a"),  # bits behind the last byte
        ("Y\r\nQ=\n=\n", b"a"),
        ("YWJj", b"abc"),
    ],
)
def test_what_is_read(text: str, data: bytes) -> None:
    assert decode(text) == data
    assert canonical(text) == base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("!", 0),
        ("YQ=", 3),
        ("YQ", 0),
        ("YWJjY", 4),
        ("YWJj\nYQ", 5),
        ("YWJj YQ==", 4),
        ("YQ==YQ==", 4),
        ("YQ=\n=x", 5),
        ("Y===", 1),
        ("=", 0),
        ("YQ=x", 2),
        ("YWJj-_==", 4),
        ("YWJjé", 4),
    ],
)
def test_where_it_ends_to_be_base64(text: str, at: int) -> None:
    with pytest.raises(IllegalBase64, match=f"^illegal base64 data at input byte {at}$"):
        decode(text)


@given(st.binary(), st.integers(0, 100))
def test_line_breaks_mean_nothing(data: bytes, at: int) -> None:
    text = base64.b64encode(data).decode()
    assert decode(f"{text[:at]}\r\n{text[at:]}\n") == data


def test_objects_hold_one_text_for_the_same_bytes() -> None:
    secret, maps = TABLE.preferred("", "secrets"), TABLE.preferred("", "configmaps")
    assert secret is not None
    assert maps is not None
    assert codec.to_document(codec.decode(secret, {"data": {"a": "YR==\n"}}))["data"] == {"a": "YQ=="}
    assert codec.to_document(codec.decode(maps, {"binaryData": {"a": "YR=="}}))["binaryData"] == {"a": "YQ=="}
    assert codec.to_document(codec.decode(maps, {"data": {"a": "YR=="}}))["data"] == {"a": "YR=="}
    with pytest.raises(BadRequest) as refused:
        codec.decode(secret, {"data": {"a": "not base64!"}})
    assert refused.value.message == (
        'Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 3'
    )
