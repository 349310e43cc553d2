"""RFC 7541: its own examples, and what a decoder has to refuse."""

import pytest

from fastgrpc.hpack import (
    MAX_MEANT_BYTES,
    STATIC_TABLE,
    Decoder,
    Encoder,
    Fields,
    HeadersTooLarge,
    HpackError,
    encode_integer,
    huffman_decode,
    huffman_encode,
    list_bytes,
)


def decoder(*, max_list_bytes: int = 1 << 16, table_bytes: int = 4096) -> Decoder[Fields]:
    return Decoder(lambda fields: fields, max_list_bytes=max_list_bytes, table_bytes=table_bytes)


def fields(text: str) -> Fields:
    rows = (row.strip().partition(": ") for row in text.strip().splitlines())
    return tuple((name.encode(), value.encode()) for name, _, value in rows)


def test_static_table() -> None:
    assert len(STATIC_TABLE) == 61
    assert STATIC_TABLE[1] == (b":method", b"GET")
    assert STATIC_TABLE[15] == (b"accept-encoding", b"gzip, deflate")
    assert STATIC_TABLE[60] == (b"www-authenticate", b"")


@pytest.mark.parametrize(
    ("value", "prefix_bits", "coded"),
    [(10, 5, "0a"), (1337, 5, "1f9a0a"), (42, 8, "2a")],
    ids=["C.1.1", "C.1.2", "C.1.3"],
)
def test_integers(value: int, prefix_bits: int, coded: str) -> None:
    assert encode_integer(value, prefix_bits, 0).hex() == coded


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", "custom-key: custom-header"),
        ("040c2f73616d706c652f70617468", ":path: /sample/path"),
        ("100870617373776f726406736563726574", "password: secret"),
        ("82", ":method: GET"),
    ],
    ids=["C.2.1", "C.2.2", "C.2.3", "C.2.4"],
)
def test_single_fields(block: str, expected: str) -> None:
    assert decoder().decode(bytes.fromhex(block)) == fields(expected)


REQUESTS = (
    ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com",
    ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache",
    ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value",
)
FIRST = ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com"
RESPONSES = (
    FIRST,
    FIRST.replace("302", "307"),
    (
        ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\nlocation: https://www.example.com\n"
        "content-encoding: gzip\nset-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
    ),
)


@pytest.mark.parametrize(
    ("table_bytes", "blocks", "expected"),
    [
        (
            4096,
            (
                "828684410f7777772e6578616d706c652e636f6d",
                "828684be58086e6f2d6361636865",
                "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
            ),
            REQUESTS,
        ),
        (
            4096,
            (
                "828684418cf1e3c2e5f23a6ba0ab90f4ff",
                "828684be5886a8eb10649cbf",
                "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
            ),
            REQUESTS,
        ),
        (
            256,
            (
                (
                    "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e17"
                    "68747470733a2f2f7777772e6578616d706c652e636f6d"
                ),
                "4803333037c1c0bf",
                (
                    "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d41"
                    "53444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b20766572736"
                    "96f6e3d31"
                ),
            ),
            RESPONSES,
        ),
        (
            256,
            (
                (
                    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82"
                    "ae43d3"
                ),
                "4883640effc1c0bf",
                (
                    "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5"
                    "af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
                ),
            ),
            RESPONSES,
        ),
    ],
    ids=["C.3", "C.4", "C.5", "C.6"],
)
def test_rows_of_blocks(table_bytes: int, blocks: tuple[str, ...], expected: tuple[str, ...]) -> None:
    under_test = decoder(table_bytes=table_bytes)
    under_test._table.resize(table_bytes)
    for block, text in zip(blocks, expected, strict=True):
        assert under_test.decode(bytes.fromhex(block)) == fields(text)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param("80", id="6.1 field 0"),
        pytest.param("be", id="2.3.3 beyond the table"),
        pytest.param("ff8080808080808001", id="5.1 a huge integer"),
        pytest.param("ffffffffffffffff", id="5.1 an integer without end"),
        pytest.param("40", id="an insertion without name"),
        pytest.param("400161", id="a name without value"),
        pytest.param("40016105616263", id="5.2 a string beyond the block"),
        pytest.param("00016184ffffffff", id="5.2 the end-of-string symbol"),
        pytest.param("0001618100", id="5.2 padding with zeros"),
        pytest.param("000161821fff", id="5.2 padding of a whole byte"),
        pytest.param("3fe21f", id="6.3 a table larger than allowed"),
        pytest.param("8220", id="4.2 a new size behind a field"),
    ],
)
def test_what_is_refused(block: str) -> None:
    with pytest.raises(HpackError):
        decoder().decode(bytes.fromhex(block))


@pytest.mark.parametrize("text", [b"", b"www.example.com", bytes(range(256)), b"\xff" * 50], ids=repr)
def test_huffman_round_trip(text: bytes) -> None:
    assert huffman_decode(huffman_encode(text)) == text


def test_a_list_too_long_is_told_and_the_table_stays_right() -> None:
    """10.5.1: the block is decoded in any case, or the next one would mean something else."""
    encoder, under_test = Encoder(), decoder(max_list_bytes=200)
    long = ((b"a", b"x" * 100), (b"b", b"y" * 100))
    with pytest.raises(HeadersTooLarge):
        under_test.decode(encoder.encode(long))
    assert under_test.decode(encoder.encode(long[1:])) == long[1:]


def test_a_bomb_stays_small() -> None:
    """One byte may stand for a field of kilobytes: what is beyond the limit is counted, not kept."""
    under_test = decoder(max_list_bytes=8192)
    big = bytes.fromhex("400161") + encode_integer(4000, 7, 0) + b"z" * 4000
    with pytest.raises(HeadersTooLarge, match=str(4033 * 1024)):
        under_test.decode(big + b"\xbe" * 1023)
    assert len(under_test._fields(b"\xbe" * 1023)[0]) == 2


def test_blocks_are_remembered_only_while_the_table_stays() -> None:
    encoder, under_test = Encoder(), decoder()
    first, second = ((b"x", b"1"),), ((b"x", b"2"),)
    under_test.decode(encoder.encode(first))
    newest = encoder.encode(first)
    assert newest == b"\xbe"
    assert under_test.decode(newest) == first
    under_test.decode(encoder.encode(second))
    assert under_test.decode(newest) == second  # the same byte means the newest field now
    assert under_test.decode(encoder.encode(first)) == first


def test_what_is_remembered_is_bounded_by_what_it_means() -> None:
    """Goal: short blocks that stand for long lists fill no memory. Method: count the bytes of all that is kept."""
    under_test = decoder(max_list_bytes=64 << 10)
    under_test.decode(bytes.fromhex("400161") + encode_integer(4000, 7, 0) + b"z" * 4000)
    for number in range(600):
        block = b"\xbe" * 15 + b"\x00\x01n\x03%03d" % number
        meant = under_test.decode(block)
        assert under_test.known(block) == meant
        kept = sum(list_bytes(known) for known in under_test._known.values())
        assert kept == under_test._known_bytes <= MAX_MEANT_BYTES
    under_test.decode(b"\x20")  # the table is emptied, and all that was built on it
    assert (under_test._known, under_test._known_bytes) == ({}, 0)


def test_ordinary_blocks_are_remembered_all() -> None:
    encoder, under_test = Encoder(), decoder()
    lists = [((b":path", b"/s/%d" % number), (b"x", b"y" * 500)) for number in range(20)]
    for each in lists * 2:
        under_test.decode(encoder.encode(each))
    assert all(under_test.known(encoder.encode(each)) == each for each in lists)


def test_sizes_between_two_blocks() -> None:
    """4.2: of several changes the smallest and the last have to be announced."""
    encoder, under_test = Encoder(), decoder()
    field = ((b"x", b"1"),)
    under_test.decode(encoder.encode(field))
    encoder.allow(0)
    encoder.allow(4096)
    block = encoder.encode(field)
    assert block.startswith(b"\x20\x3f\xe1\x1f")
    assert under_test.decode(block) == field
    encoder.allow(0)
    assert under_test.decode(encoder.encode(field)) == field
    assert not under_test._table.fields


def test_secrets_and_passing_values_enter_no_table() -> None:
    encoder = Encoder()
    block = encoder.encode(((b"authorization", b"Bearer x"), (b"grpc-timeout", b"1S")))
    assert block[0] & 0xF0 == 0x10  # 6.2.3: never indexed, by intermediaries neither
    assert not encoder._table.fields


def test_what_is_long_goes_as_it_is() -> None:
    """Goal: its code, which costs the square of its length, holds nobody up. Method: the value stands in the block."""
    value = b"0" * 300_000
    assert value in Encoder().encode(((b"grpc-message", value),))
