"""The generated structs against the models of the official client: names, requiredness, and a full round trip."""

import inspect
import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from kubernetes.client import models

import importlib

import msgspec

from api.kinds.table import ROWS, TABLE, Table
from api.shapes import fields_of
from api.struct import ApiStruct, json_name
from tools.generate_kinds import MODULES, struct_name


def _models() -> dict[str, type]:
    """Our struct's name -> the client's model, for every struct that we have."""
    found = {}
    for name, cls in inspect.getmembers(models, inspect.isclass):
        if hasattr(cls, "openapi_types"):
            found.setdefault(struct_name(name), []).append(cls)
    return found


CANDIDATES = _models()
STRUCTS = [
    cls
    for module in MODULES
    for _, cls in inspect.getmembers(importlib.import_module(module), inspect.isclass)
    if issubclass(cls, ApiStruct) and cls.__module__ == module and cls.__name__ != "Resource"
]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_struct_has_the_published_fields(struct):
    ours = set(fields_of(struct))
    published = [set(model.attribute_map.values()) for model in CANDIDATES[struct.__name__]]
    assert ours in published


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.group}/{row.plural}")
def test_every_row_is_a_kind_with_metadata(row):
    fields = fields_of(row.model)
    assert {"apiVersion", "kind", "metadata"} <= set(fields)
    assert TABLE.resource(row.group, row.version, row.plural) is row
    assert TABLE.kind(row.group_version, row.kind) is row


def test_a_taken_place_in_the_table_is_refused():
    table = Table()
    with pytest.raises(ValueError, match="in the table already"):
        table.add(ROWS[0])


@pytest.mark.parametrize(
    ("attribute", "name"),
    [("pod_ips", "podIPs"), ("cluster_ip", "clusterIP"), ("api_version", "apiVersion"), ("not_", "not"),
     ("host_pid", "hostPID"), ("container_id", "containerID"), ("set_hostname_as_fqdn", "setHostnameAsFQDN")],
)  # fmt: skip
def test_json_names(attribute, name):
    assert json_name(attribute) == name


def test_required_zeros_are_written_and_empty_options_are_not():
    from api.kinds.pods import ContainerStatus, Pod

    written = msgspec.json.decode(msgspec.json.encode(ContainerStatus(name="a", image="i")))
    assert written["restartCount"] == 0
    assert written["ready"] is False
    assert "containerID" not in written
    assert msgspec.json.decode(msgspec.json.encode(Pod()))["status"] == {}
