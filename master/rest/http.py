"""HTTP requests and answers as the handlers see them: bodies in, bytes out, nothing about verbs."""

import asyncio
import contextlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from api import protobuf
from api.errors import (
    ApiError,
    BadRequest,
    RequestTooLarge,
    Timeout,
    UnsupportedMediaType,
)
from fasthttp.writing import Response
from master.rest.negotiation import JSON, YAML
from master.rest.request import Request

MAX_BODY_BYTES = 3 * 1024 * 1024
BODY_S = 60.0  # a client has to send it
MAX_DEPTH = 100  # of nested lists and maps in a body; deeper ones only exhaust the stack
GZIP_FROM_BYTES = 128 * 1024
LARGE_BYTES = 64 * 1024

encode_json = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer, ready to be written."""

    code: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()


async def read_body(request: Request) -> bytes:
    """Return the body; raises RequestTooLarge beyond what any object may have, before reading it all.

    Raises Timeout for a client that does not send it: meanwhile it keeps a seat from others.
    """
    check_size(request.content_length or 0)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while chunk := await request.read_some():
                body += chunk
                check_size(len(body))
    except TimeoutError:
        raise Timeout("Timeout: request did not complete within the allotted duration") from None
    whole = bytes(body)
    request.kept_body = whole
    return whole


def check_size(size: int) -> None:
    """Raise RequestTooLarge for a body beyond what any object may have."""
    if size > MAX_BODY_BYTES:
        raise RequestTooLarge(f"Request entity too large: limit is {MAX_BODY_BYTES}")


def media_type(request: Request) -> str:
    """Return the body's media type without its parameters, in lower case; JSON if the client names none."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower() or JSON


async def parse_body(body: bytes, content_type: str, duplicates: list[str] | None = None) -> Any:
    """Return what ``parse_document`` does; of a large body, which may take seconds, without holding up others."""
    if len(body) < LARGE_BYTES:
        return parse_document(body, content_type, duplicates)
    return await asyncio.to_thread(parse_document, body, content_type, duplicates)


def parse_document(body: bytes, content_type: str, duplicates: list[str] | None = None) -> Any:
    """Return the JSON value that ``body`` holds.

    duplicates: receives a text for every repeated key, which costs a slower parser.
    Raises BadRequest, or UnsupportedMediaType for anything but JSON, YAML and protobuf.
    """
    if content_type == JSON:
        return _parse_json(body, duplicates)
    if content_type in (YAML, "application/apply-patch+yaml", "application/x-yaml", "text/yaml"):
        return _parse_yaml(body, duplicates)
    if content_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(body)
    supported = f"{JSON}, {YAML}, {protobuf.MEDIA_TYPE}"
    raise UnsupportedMediaType(
        f"the body of the request was in an unknown format - accepted media types include: {supported}"
    )


def _parse_json(body: bytes, duplicates: list[str] | None) -> Any:
    try:
        if duplicates is not None:
            return _parse_json_noting_duplicates(body, duplicates)
        return msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"couldn't get version/kind; json parse error: {error}") from None


def _parse_json_noting_duplicates(body: bytes, duplicates: list[str]) -> Any:
    value = msgspec.json.decode(body)  # stricter than the standard library: no NaN, no lone surrogates
    repeats = False

    def pairs(items: list[tuple[str, Any]]) -> _Pairs:
        nonlocal repeats
        repeats = repeats or len(dict(items)) != len(items)
        return _Pairs(items)

    written = json.loads(body, object_pairs_hook=pairs)
    if repeats:
        _note_duplicates(written, "", duplicates)
    return value


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written."""


def _note_duplicates(written: Any, path: str, duplicates: list[str]) -> None:
    """Note the path of every key that stands in its object already."""
    if isinstance(written, _Pairs):
        seen: set[str] = set()
        for key, each in written:
            at = f"{path}.{key}" if path else key
            if key in seen:
                duplicates.append(f'duplicate field "{at}"')
            seen.add(key)
            _note_duplicates(each, at, duplicates)
    elif isinstance(written, list):
        for index, each in enumerate(written):
            _note_duplicates(each, f"{path}[{index}]", duplicates)


def _parse_yaml(body: bytes, duplicates: list[str] | None) -> Any:
    if body.lstrip().startswith(b"{"):
        # What kubectl applies is called YAML and is JSON, which reads forty times as fast.
        repeated: list[str] | None = None if duplicates is None else []
        with contextlib.suppress(BadRequest):
            value = _parse_json(body, repeated)
            if not repeated:
                return value
    from master.rest import yaml_bodies  # noqa: PLC0415 - most clients never send any

    return yaml_bodies.parse(body, duplicates)


def check_depth(value: Any) -> None:
    """Raise BadRequest if ``value`` nests deeper than any object of the API does."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise too_deep()


def too_deep() -> BadRequest:
    """Return the refusal of what nests too deep."""
    return BadRequest(f"the object nests more than {MAX_DEPTH} levels deep")


def encode_as(document: Any, content_type: str, *, pretty: bool = False) -> bytes:
    """Return ``document`` (a value or its JSON bytes) in the form asked for."""
    data = document if isinstance(document, bytes) else encode_json(document)
    if content_type == YAML:
        from master.rest import yaml_bodies  # noqa: PLC0415 - as above

        return yaml_bodies.dump(data)
    return msgspec.json.format(data, indent=2) + b"\n" if pretty else data


def failure(error: ApiError) -> Answer:
    """Return the Status that tells a client what it did wrong, or what went wrong here."""
    headers = {}
    # Not with every 429: a client's library waits and repeats by itself when it is told how long, and says nothing.
    if error.retry_after_s or error.code in (503, 504):
        headers["Retry-After"] = str(error.retry_after_s or 1)
    return Answer(code=error.code, body=_encode_status(error.status()) + b"\n", headers=headers)


def _encode_status(status: Mapping[str, Any]) -> bytes:
    """Return a Status as JSON: also one that repeats what a client sent as no UTF-8."""
    try:
        return encode_json(status)
    except UnicodeEncodeError:
        return json.dumps(status, ensure_ascii=False).encode("utf-8", "replace")


def success_status(message: str = "", **details: Any) -> dict[str, Any]:
    """Return the Status of a request that has no object to answer with."""
    status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if message:
        status["message"] = message
    if kept := {key: value for key, value in details.items() if value}:
        status["details"] = kept
    return status


def _warning_fields(warnings: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield one Warning field for each text, as kubectl prints them."""
    for text in warnings:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        printable = "".join(each if each.isprintable() else " " for each in escaped)
        yield "Warning", f'299 - "{printable}"'


async def to_response(request: Request, answer: Answer, common: Mapping[str, str]) -> Response:
    """Return the answer as it is sent, compressed when it is large and the client takes gzip."""
    body = answer.body
    headers = {"Content-Type": answer.content_type, "Cache-Control": "no-cache, private", **common, **answer.headers}
    if len(body) > GZIP_FROM_BYTES and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = await asyncio.to_thread(_gzip, body)
        headers["Content-Encoding"] = "gzip"
        headers["Vary"] = "Accept-Encoding"
    return Response(answer.code, (*headers.items(), *_warning_fields(answer.warnings)), body)


def _gzip(body: bytes) -> bytes:
    # Level 1: on a local network the processor, not the wire, is what a list waits for.
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    return compressor.compress(body) + compressor.flush()
