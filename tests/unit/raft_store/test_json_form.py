"""Messages as JSON: what is no value of a field is refused, and never taken for another one."""

import json

import pytest

from raft_store.etcd_api import json_form
from trireme_pb.etcdserverpb import rpc_pb2 as pb

KEY = '"key": "azA="'


def read(text, message):
    json_form.read(text.encode(), message)
    return message


def test_both_names_of_fields_numbers_as_text_and_enums_by_name_or_number():
    txn = read(
        '{"compare": [{"key": "azA=", "target": "VALUE", "result": 3, "value": "OQ=="}],'
        ' "success": [{"requestPut": {"key": "azA=", "ignoreLease": true}},'
        ' {"request_range": {"range_end": "bA==", "sortOrder": "DESCEND", "limit": "5"}}]}',
        pb.TxnRequest(),
    )
    (compare,) = txn.compare
    assert (compare.key, compare.target, compare.result, compare.value) == (b"k0", 3, 3, b"9")
    put, found = txn.success
    assert put.request_put == pb.PutRequest(key=b"k0", ignore_lease=True)
    assert found.request_range == pb.RangeRequest(range_end=b"l", sort_order=pb.RangeRequest.DESCEND, limit=5)


@pytest.mark.parametrize("text", ["", " \n", "null", "{}", ' {"made_up": "x y"}', '{"key": null, "limit": null} x'])
def test_what_says_nothing_is_an_empty_message(text):
    assert read(text, pb.RangeRequest()) == pb.RangeRequest()


@pytest.mark.parametrize(
    ("value", "at"),
    [
        pytest.param("hello world!", 5, id="blank"),
        pytest.param("YW_-", 2, id="of addresses"),
        pytest.param("YQ", 0, id="not padded"),
        pytest.param("YWJjYQ", 4, id="its end not padded"),
        pytest.param("YQ==YQ==", 4, id="two of them"),
        pytest.param("Y===", 1, id="too few digits"),
        pytest.param("Y\u00e9==", 1, id="no ASCII"),
    ],
)
def test_what_is_no_base64(value, at):
    with pytest.raises(ValueError, match=f"^illegal base64 data at input byte {at}$"):
        read(f'{{{KEY}, "value": "{value}"}}', pb.PutRequest())


def test_base64_may_have_line_ends_and_bits_left_over():
    assert read('{"key": "azA\\r\\n=\\n", "value": "azB="}', pb.PutRequest()) == pb.PutRequest(key=b"k0", value=b"k0")


@pytest.mark.parametrize(
    ("message", "text", "refusal"),
    [
        pytest.param(
            pb.RangeRequest(),
            f'{{{KEY}, "sort_order": "descend"}}',
            'unknown value "descend" for enum etcdserverpb.RangeRequest_SortOrder',
            id="a name in small letters",
        ),
        pytest.param(
            pb.RangeRequest(),
            f'{{{KEY}, "sortOrder": "1"}}',
            'unknown value "1" for enum etcdserverpb.RangeRequest_SortOrder',
            id="a number as text",
        ),
        pytest.param(
            pb.AlarmRequest(),
            '{"action": true}',
            "json: cannot unmarshal bool into Go value of type etcdserverpb.AlarmRequest_AlarmAction",
            id="no name at all",
        ),
        pytest.param(
            pb.AuthRoleGrantPermissionRequest(),
            f'{{"name": "r", "perm": {{"permType": "WRITEONLY", {KEY}}}}}',
            'unknown value "WRITEONLY" for enum authpb.Permission_Type',
            id="inside",
        ),
        pytest.param(
            pb.WatchRequest(),
            f'{{"create_request": {{{KEY}, "filters": ["NOPUT", "X"]}}}}',
            'unknown value "X" for enum etcdserverpb.WatchCreateRequest_FilterType',
            id="one of several",
        ),
        pytest.param(
            pb.TxnRequest(),
            '{"failure": [{"request_txn": {"compare": [{"target": "VALUES"}]}}]}',
            'unknown value "VALUES" for enum etcdserverpb.Compare_CompareTarget',
            id="deep inside",
        ),
    ],
)
def test_what_is_no_enum(message, text, refusal):
    with pytest.raises(ValueError, match="^" + refusal + "$"):
        read(text, message)


@pytest.mark.parametrize("text", ['"abc"', "[]", "5", "true", '{"perm": "abc"}', '{"perm": {"key": 5}}'])
def test_what_is_of_another_kind(text):
    with pytest.raises(ValueError, match=r"^json: cannot unmarshal "):
        read(text, pb.AuthRoleGrantPermissionRequest())


@pytest.mark.parametrize("limit", [1.0, True, [], "", "x", "1.0", "1e3", "+1", "01", "1_0", " 1", "\u0663"])
def test_what_is_no_integer(limit):
    with pytest.raises(ValueError, match=r"^json: cannot unmarshal \w+ into Go value of type int64$"):
        read(json.dumps({"limit": limit}), pb.RangeRequest())


@pytest.mark.parametrize("limit", [0, -5, "0", "-5", "9223372036854775807"])
def test_integers(limit):
    assert read(json.dumps({"limit": limit}), pb.RangeRequest()).limit == int(limit)


@pytest.mark.parametrize(
    "text", ["nojson", "{", '{"key": "', "]", '{"limit": "x"}', '{"filters": "NOPUT"}', "\ufeff{}"]
)
def test_what_is_no_json_or_not_of_its_field(text):
    with pytest.raises(ValueError, match=r"."):
        read(text, pb.RangeRequest() if "filters" not in text else pb.WatchCreateRequest())


@pytest.mark.parametrize("text", ["[" * 5000, "[" * 5000 + "]" * 5000, '{"made_up":' * 5000 + "1" + "}" * 5000])
def test_what_is_nested_too_deep(text):
    with pytest.raises(ValueError, match="exceeded max depth"):
        read(text, pb.RangeRequest())


def test_names_that_are_no_utf8_are_marked():
    request = pb.AuthUserAddRequest()
    json_form.read(b'{"name": "a\xff"}', request)
    assert request.name == "a\ufffd"


def test_half_a_surrogate_is_marked():
    """Goal: protobuf's tables of names never see one; they leave an exception behind, to whatever comes next."""
    assert (
        read(r'{"\udfff": 1, "name": "a\ud800b\ud83d\ude00\uDFFF"}', pb.AuthUserAddRequest()).name == "a\ufffdb😀\ufffd"
    )
    with pytest.raises(ValueError, match=r'^unknown value "\\ufffd" for enum etcdserverpb.RangeRequest_SortOrder$'):
        read(r'{"sort_order": "\ud800"}', pb.RangeRequest())


STREAMS = [
    pytest.param(b"", [], b"", id="nothing"),
    pytest.param(b' {"a": [1, {"b": "}"}]}\n{}[]', [b'{"a": [1, {"b": "}"}]}', b"{}", b"[]"], b"", id="objects"),
    pytest.param(rb'{"\\": "\"}"} "\\""{" ', [rb'{"\\": "\"}"}', rb'"\\"', b'"{"'], b"", id="texts"),
    pytest.param(b'null{"a":1}12 true\t-1.5e3', [b"null", b'{"a":1}', b"12", b"true"], b"-1.5e3", id="others"),
    pytest.param(b'{"a": [', [], b'{"a": [', id="without an end"),
    pytest.param(b'{"a": "}]', [], b'{"a": "}]', id="a text without an end"),
    pytest.param(b"}{]nojson {}", [b"}", b"{]", b"nojson", b"{}"], b"", id="none"),
    pytest.param('{"é": "日本"} "ü"'.encode(), ['{"é": "日本"}'.encode(), '"ü"'.encode()], b"", id="beyond ASCII"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(("stream", "values", "rest"), STREAMS)
def test_a_stream_of_values_is_cut_wherever_its_pieces_end(stream, values, rest, size):
    cutter, found = json_form.Cutter(), []
    for begin in range(0, len(stream), size):
        found += cutter.feed(stream[begin : begin + size])
    assert (found, cutter.rest()) == (values, rest)


class Counting:
    """A pattern that counts the bytes it looks at."""

    looked_at = 0

    def __init__(self, pattern):
        self.pattern = pattern

    def search(self, piece, begin):
        found = self.pattern.search(piece, begin)
        Counting.looked_at += (len(piece) if found is None else found.end()) - begin
        return found


@pytest.mark.parametrize(
    "body", [b'{"key": "' + b"YWJj" * 50_000 + b'"}', b'{"key": "' + b"\\\\" * 50_000, b"[" * 100_000], ids=len
)
def test_each_byte_is_looked_at_once_however_small_the_pieces(monkeypatch, body):
    monkeypatch.setattr(Counting, "looked_at", 0)
    for name in ("_IN_TEXT", "_INSIDE", "_BETWEEN"):
        monkeypatch.setattr(json_form, name, Counting(getattr(json_form, name)))
    cutter = json_form.Cutter()
    for begin in range(0, len(body), 5):
        cutter.feed(body[begin : begin + 5])
    # A backslash at the end of a piece is looked at with the next one again.
    assert len(body) <= Counting.looked_at <= 1.2 * len(body)
