"""What a caller of the API may do wrong, or find in the way: one class per Kubernetes reason.

ApiError
├── BadRequest           400 the request cannot be read
├── Unauthorized         401 who are you
├── Forbidden            403 you may not
├── NotFound             404
├── MethodNotAllowed     405
├── NotAcceptable        406 no form of answer that the client accepts
├── AlreadyExists        409 the name is taken
├── Conflict             409 somebody wrote since you read
├── Expired              410 that revision has been compacted; list again
├── RequestTooLarge      413
├── UnsupportedMediaType 415
├── Invalid              422 the object breaks rules; carries all of its faults
├── TooManyRequests      429 later; carries seconds to wait
├── InternalError        500 our fault
├── Unavailable          503 the store has no quorum, or we are starting
└── Timeout              504 it may have happened or not
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong with an object."""

    field: str  # path: "spec.containers[0].image"
    message: str  # 'Required value', 'Invalid value: "x": must be ...'
    reason: str = "FieldValueInvalid"  # FieldValueRequired, FieldValueDuplicate, FieldValueNotSupported, ...


class ApiError(Exception):
    """A refusal that a client receives as a Kubernetes Status object."""

    code: ClassVar[int]
    reason: ClassVar[str]

    def __init__(
        self,
        message: str,
        *,
        group: str = "",
        kind: str = "",
        name: str = "",
        uid: str = "",
        causes: Sequence[Fault] = (),
        retry_after_s: int = 0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.group = group
        self.kind = kind  # the plural for most reasons, the kind for Invalid: as the real server does
        self.name = name
        self.uid = uid
        self.causes = tuple(causes)
        self.retry_after_s = retry_after_s

    def status(self) -> dict[str, Any]:
        """Return the Status object, ready to be encoded."""
        details: dict[str, Any] = {
            "name": self.name,
            "group": self.group,
            "kind": self.kind,
            "uid": self.uid,
            "causes": [
                {
                    "reason": fault.reason,
                    "message": fault.message,
                    **({"field": fault.field} if fault.field else {}),
                }
                for fault in self.causes
            ],
            "retryAfterSeconds": self.retry_after_s,
        }
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if kept := {key: value for key, value in details.items() if value}:
            status["details"] = kept
        # In the real server's order: people compare texts.
        status["code"] = self.code
        return status


class BadRequest(ApiError):
    """The request cannot be read."""

    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    """Nobody we know sent this."""

    code, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    """The user is known but may not."""

    code, reason = 403, "Forbidden"


class NotFound(ApiError):
    """There is no such object, kind or path."""

    code, reason = 404, "NotFound"


class MethodNotAllowed(ApiError):
    """The resource exists; this verb does not apply to it."""

    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(ApiError):
    """No form that the client accepts can be made."""

    code, reason = 406, "NotAcceptable"


class AlreadyExists(ApiError):
    """The name is taken."""

    code, reason = 409, "AlreadyExists"


class Conflict(ApiError):
    """Somebody wrote since the caller read."""

    code, reason = 409, "Conflict"


class Expired(ApiError):
    """The revision asked for has been compacted; list again."""

    code, reason = 410, "Expired"


class RequestTooLarge(ApiError):
    """The object is larger than the store takes."""

    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    """The body's content type is not one we read."""

    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    """The object breaks rules; ``causes`` has every fault."""

    code, reason = 422, "Invalid"


class TooManyRequests(ApiError):
    """Later: a budget or a limit is spent."""

    code, reason = 429, "TooManyRequests"


class InternalError(ApiError):
    """Our own fault."""

    code, reason = 500, "InternalError"


class Unavailable(ApiError):
    """The store has no quorum, or this master is starting."""

    code, reason = 503, "ServiceUnavailable"


class Timeout(ApiError):
    """Nobody knows whether it happened; the caller must look."""

    code, reason = 504, "Timeout"


ALL = (
    BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, AlreadyExists, Conflict, Expired,
    RequestTooLarge, UnsupportedMediaType, Invalid, TooManyRequests, InternalError, Unavailable, Timeout,
)  # fmt: skip


def not_found(plural: str, name: str, *, group: str = "") -> NotFound:
    """Return the refusal that kubectl prints as ``pods "web" not found``."""
    return NotFound(f'{_qualified(plural, group)} "{name}" not found', group=group, kind=plural, name=name)


def already_exists(plural: str, name: str, *, group: str = "") -> AlreadyExists:
    """Return ``pods "web" already exists``."""
    return AlreadyExists(f'{_qualified(plural, group)} "{name}" already exists', group=group, kind=plural, name=name)


def no_unique_name(plural: str, name: str, *, group: str = "") -> AlreadyExists:
    """Return the refusal where every name that was made up is taken."""
    why = "the server was not able to generate a unique name for the object"
    message = f'{_qualified(plural, group)} "{name}" already exists, {why}'
    return AlreadyExists(message, group=group, kind=plural, name=name, retry_after_s=1)


def conflict(plural: str, name: str, why: str, *, group: str = "") -> Conflict:
    """Return ``Operation cannot be fulfilled on pods "web": why``."""
    message = f'Operation cannot be fulfilled on {_qualified(plural, group)} "{name}": {why}'
    return Conflict(message, group=group, kind=plural, name=name)


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def invalid(kind: str, name: str, faults: Sequence[Fault], *, group: str = "") -> Invalid:
    """Return the refusal for an object of ``kind`` (not its plural) with all of its ``faults``."""
    lines = [f"{fault.field}: {fault.message}" for fault in faults]
    text = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
    shown = f"{kind}.{group}" if group else kind
    return Invalid(f'{shown} "{name}" is invalid: {text}', group=group, kind=kind, name=name, causes=faults)


def _qualified(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural
