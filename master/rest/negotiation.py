"""Which form of answer a client wants: its Accept header against what we can write.

Sources: RFC 9110 12.5.1; kubernetes.io, "Receiving resources as Tables" and "API discovery".
"""

from functools import lru_cache

import msgspec

from api.errors import NotAcceptable

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"


class MediaRange(msgspec.Struct, frozen=True):
    """One alternative of an Accept header."""

    type: str  # "application/json", "*/*"
    parameters: dict[str, str]
    text: str  # as the client wrote it


class Form(msgspec.Struct, frozen=True):
    """How to write an answer."""

    media_type: str = JSON
    transform: str = ""  # "", "Table", "PartialObjectMetadata" or "PartialObjectMetadataList"
    version: str = ""  # of meta.k8s.io, for the transform


@lru_cache(maxsize=256)
def parse_accept(header: str) -> tuple[MediaRange, ...]:
    """Return the alternatives of an Accept header, best first; equal ones in the client's order."""
    ranked: list[tuple[float, MediaRange]] = []
    for part in header.split(","):
        text, *pieces = (piece.strip() for piece in part.split(";"))
        parameters = {key.strip(): value.strip() for key, _, value in (piece.partition("=") for piece in pieces)}
        if text:
            quality = _quality(parameters.pop("q", "1"))
            ranked.append((quality, MediaRange(text.lower(), parameters, part.strip())))
    ranked.sort(key=lambda pair: -pair[0])
    return tuple(each for quality, each in ranked if quality > 0)


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


_TRANSFORMS = {
    "Table": ("v1", "v1beta1"),
    "PartialObjectMetadata": ("v1", "v1beta1"),
    "PartialObjectMetadataList": ("v1", "v1beta1"),
}


@lru_cache(maxsize=256)
def pick_form(header: str, *, transforms: frozenset[str] = frozenset()) -> Form:
    """Return the first form in the client's order that we can write; raises NotAcceptable.

    transforms: those that fit what is asked for (a single object cannot become a PartialObjectMetadataList).
    """
    for accepted in parse_accept(header) if header.strip() else (MediaRange("*/*", {}, "*/*"),):
        media_type = _written_as(accepted.type)
        if media_type is None:
            continue
        if not (name := accepted.parameters.get("as", "")):
            return Form(media_type)
        version = accepted.parameters.get("v", "")
        if (
            name in transforms
            and accepted.parameters.get("g") == "meta.k8s.io"
            and version in _TRANSFORMS.get(name, ())
        ):
            return Form(media_type, name, version)
    raise NotAcceptable(f"only the following media types are accepted: {JSON}, {YAML}")


def _written_as(media_range: str) -> str | None:
    if media_range in ("*/*", "application/*", JSON):
        return JSON
    return YAML if media_range == YAML else None
