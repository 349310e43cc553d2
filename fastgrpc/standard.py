"""The services that every gRPC server should have: health, and reflection, so that grpcurl and friends need no .proto.

They need protobuf and the stubs of both contracts, and nothing of grpcio's runtime: who serves by fastgrpc loads none.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from .calls import CallFailed, Status
from .serving import Call, StreamMethod, UnaryMethod

HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"


def serialize(message: Message) -> bytes:
    """Return a message's bytes."""
    return message.SerializeToString()


class Health:
    """grpc.health.v1.Health for the server as a whole, which is service ""."""

    def __init__(self) -> None:
        self._status = health_pb2.HealthCheckResponse.NOT_SERVING
        self._changed = asyncio.Event()

    def set(self, *, serving: bool) -> None:
        """Say how it is from now on."""
        self._status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        self._changed.set()
        self._changed = asyncio.Event()

    def methods(self) -> list[UnaryMethod | StreamMethod]:
        """Return the service's rows."""
        decode = health_pb2.HealthCheckRequest.FromString
        return [
            UnaryMethod(f"/{HEALTH}/Check", self._check, decode, serialize),
            StreamMethod(f"/{HEALTH}/Watch", self._watch, decode, serialize),
        ]

    async def _check(self, request: Any, call: Call) -> Message:
        del call
        if request.service:
            raise CallFailed(Status.NOT_FOUND, f"unknown service {request.service}")
        answer: Message = health_pb2.HealthCheckResponse(status=self._status)
        return answer

    async def _watch(self, call: Call) -> None:
        async for request in call.requests():
            if request.service:
                unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
                await call.send(health_pb2.HealthCheckResponse(status=unknown))
                await asyncio.Event().wait()
            while True:
                changed, said = self._changed, self._status
                await call.send(health_pb2.HealthCheckResponse(status=said))
                while said == self._status:
                    await changed.wait()
                    changed = self._changed


class Reflection:
    """grpc.reflection.v1alpha.ServerReflection over protobuf's pool of everything that is loaded.

    services: full names, as a list of them is answered.
    """

    def __init__(self, services: Sequence[str]) -> None:
        self._services = sorted(services)
        self._pool = descriptor_pool.Default()

    def methods(self) -> list[StreamMethod]:
        """Return the service's row."""
        decode = reflection_pb2.ServerReflectionRequest.FromString
        return [StreamMethod(f"/{REFLECTION}/ServerReflectionInfo", self._serve, decode, serialize)]

    async def _serve(self, call: Call) -> None:
        async for request in call.requests():
            answer = reflection_pb2.ServerReflectionResponse(valid_host=request.host, original_request=request)
            try:
                self._answer(request, answer)
            except KeyError:
                answer.error_response.error_code = Status.NOT_FOUND
                answer.error_response.error_message = "not found"
            await call.send(answer)

    def _answer(self, request: Any, answer: Any) -> None:
        """Fill in what a request asks for; raises KeyError for what nobody knows."""
        match request.WhichOneof("message_request"):
            case "list_services":
                for name in self._services:
                    answer.list_services_response.service.add(name=name)
            case "file_by_filename":
                self._add_files(answer, self._pool.FindFileByName(request.file_by_filename))
            case "file_containing_symbol":
                self._add_files(answer, self._pool.FindFileContainingSymbol(request.file_containing_symbol))
            case "file_containing_extension":
                wanted = request.file_containing_extension
                extended = self._pool.FindMessageTypeByName(wanted.containing_type)
                extension = self._pool.FindExtensionByNumber(extended, wanted.extension_number)
                self._add_files(answer, self._pool.FindFileContainingSymbol(extension.full_name))
            case "all_extension_numbers_of_type":
                extended = self._pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
                found = answer.all_extension_numbers_response
                found.base_type_name = extended.full_name
                found.extension_number.extend(sorted(each.number for each in self._pool.FindAllExtensions(extended)))
            case _:
                answer.error_response.error_code = Status.INVALID_ARGUMENT
                answer.error_response.error_message = "the request asks for nothing"

    @staticmethod
    def _add_files(answer: Any, file: FileDescriptor) -> None:
        for each in _with_imports(file, set()):
            answer.file_descriptor_response.file_descriptor_proto.append(each.serialized_pb)


def _with_imports(file: FileDescriptor, seen: set[str]) -> Iterator[FileDescriptor]:
    """Yield a file and all that it imports, each once."""
    if file.name in seen:
        return
    seen.add(file.name)
    yield file
    for each in file.dependencies:
        yield from _with_imports(each, seen)
