"""An OpenAPI v2 document in the protobuf form that kubectl asks for.

The form is positional (numbered fields, maps as lists of pairs); whatever has no field of its own, the ``x-`` keys,
travels as text that the client parses as YAML, of which JSON is a part.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from trireme_pb.openapi import openapi_v2_pb2 as pb


def encode_path(name: str, item: Mapping[str, Any]) -> bytes:
    """Return one path of a document, ready to be joined with others."""
    return pb.Paths(path=[pb.NamedPathItem(name=name, value=_path_item(item))]).SerializeToString()


def encode_definition(name: str, schema: Mapping[str, Any]) -> bytes:
    """Return one definition of a document, ready to be joined with others."""
    return pb.Definitions(additional_properties=[pb.NamedSchema(name=name, value=_schema(schema))]).SerializeToString()


def join(info: Mapping[str, str], paths: Iterable[bytes], definitions: Iterable[bytes]) -> bytes:
    """Return the wire form of a document: messages that are written one after the other are one message."""
    head = pb.Document(swagger="2.0", info=pb.Info(title=info["title"], version=info["version"]))
    return head.SerializeToString() + _field("paths", b"".join(paths)) + _field("definitions", b"".join(definitions))


def _field(name: str, message: bytes) -> bytes:
    """Return a submessage of the document: its tag, its length, itself."""
    number = pb.Document.DESCRIPTOR.fields_by_name[name].number
    size, length = len(message), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes((number << 3 | 2,)) + bytes(length) + message


def _extensions(value: Mapping[str, Any]) -> list[pb.NamedAny]:
    return [
        pb.NamedAny(name=key, value=pb.Any(yaml=json.dumps(each)))
        for key, each in value.items()
        if key.startswith("x-")
    ]


def _path_item(item: Mapping[str, Any]) -> pb.PathItem:
    operations = {method: _operation(each) for method, each in item.items() if method != "parameters"}
    return pb.PathItem(**operations, parameters=[_parameter(each) for each in item["parameters"]])


def _operation(operation: Mapping[str, Any]) -> pb.Operation:
    message = pb.Operation(
        operation_id=operation["operationId"],
        produces=operation["produces"],
        consumes=operation["consumes"],
        parameters=[_parameter(each) for each in operation["parameters"]],
        vendor_extension=_extensions(operation),
    )
    for code, response in operation["responses"].items():
        answer = pb.Response(
            description=response["description"], schema=pb.SchemaItem(schema=_schema(response["schema"]))
        )
        message.responses.response_code.add(name=code, value=pb.ResponseValue(response=answer))
    return message


def _parameter(parameter: Mapping[str, Any]) -> pb.ParametersItem:
    name, location = parameter["name"], parameter["in"]
    if location == "body":
        schema = _schema(parameter["schema"])
        body = pb.BodyParameter(name=name, location=location, required=parameter["required"], schema=schema)
        return pb.ParametersItem(parameter=pb.Parameter(body=body))
    if location == "path":
        path = pb.PathParameter(name=name, location=location, required=True, type=parameter["type"])
        return pb.ParametersItem(parameter=pb.Parameter(non_body=pb.NonBodyParameter(path=path)))
    query = pb.QueryParameter(name=name, location=location, type=parameter["type"])
    return pb.ParametersItem(parameter=pb.Parameter(non_body=pb.NonBodyParameter(query=query)))


def _schema(schema: Mapping[str, Any]) -> pb.Schema:
    message = pb.Schema(
        ref=schema.get("$ref", ""),
        format=schema.get("format", ""),
        description=schema.get("description", ""),
        required=schema.get("required", ()),
        vendor_extension=_extensions(schema),
    )
    if "type" in schema:
        message.type.value.append(schema["type"])
    if "additionalProperties" in schema:
        message.additional_properties.schema.CopyFrom(_schema(schema["additionalProperties"]))
    if "items" in schema:
        message.items.schema.append(_schema(schema["items"]))
    for name, each in schema.get("properties", {}).items():
        message.properties.additional_properties.add(name=name, value=_schema(each))
    return message
