"""Who wants no unknown or repeated fields is told of all of them at once, whatever the write."""

from typing import Any

import pytest

from api.errors import ApiError, BadRequest, Invalid
from tests.contract.storage.conftest import Cluster

TWICE = ('duplicate field "metadata.name"',)
STRICT = {"field_validation": "Strict", "repeated": TWICE}
DEPLOYMENT = {
    "metadata": {"name": "d"},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        },
    },
}
BOTH = 'strict decoding error: duplicate field "metadata.name", unknown field "spec.odd"'


@pytest.mark.parametrize(("subresource", "kind"), [("", "Deployment"), ("status", "Deployment"), ("scale", "Scale")])
async def test_updates(cluster: Cluster, subresource: str, kind: str) -> None:
    made = await cluster.create("deployments.apps", DEPLOYMENT)
    document = made | {"spec": {"replicas": 1, "odd": 1} if subresource == "scale" else made["spec"] | {"odd": 1}}
    with pytest.raises(BadRequest) as refused:
        await cluster.update("deployments.apps", document, subresource=subresource, **STRICT)
    assert refused.value.message == f'{kind} in version "v1" cannot be handled as a {kind}: {BOTH}'


@pytest.mark.parametrize("how", ["merge", "strategic", "json"])
async def test_patches(cluster: Cluster, how: str) -> None:
    await cluster.create("deployments.apps", DEPLOYMENT)
    patch: Any = {"metadata": {"name": "d"}, "spec": {"odd": 1}}
    if how == "json":
        patch = [{"op": "add", "path": "/spec/odd", "value": 1}]
    with pytest.raises(Invalid) as refused:
        await cluster.patch("deployments.apps", "d", patch, how, **STRICT)
    assert refused.value.message.endswith(BOTH.replace("duplicate", "json patch duplicate") if how == "json" else BOTH)
    warned = await cluster.write_patch("deployments.apps", "d", patch, how, field_validation="Warn", repeated=TWICE)
    assert len(warned.warnings) == 2


async def test_applies(cluster: Cluster) -> None:
    intent = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "2"}}
    lines = ('line 4: key "a" already set in map',)
    options = {"field_validation": "Strict", "repeated": lines, "field_manager": "me"}
    for _ in range(2):  # one that would make the object, and one that would change it
        with pytest.raises(BadRequest) as refused:
            await cluster.patch("configmaps", "m", intent, "apply", **options)
        assert refused.value.message == (
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n"
            '  line 4: key "a" already set in map'
        )
        warned = await cluster.write_patch("configmaps", "m", intent, "apply", **options | {"field_validation": "Warn"})
        assert warned.warnings == lines


@pytest.mark.parametrize(
    ("subresource", "document", "unknown"),
    [
        ("eviction", {"deleteOptions": {"odd": 1}}, "deleteOptions.odd"),
        ("binding", {"target": {"kind": "Node", "name": "n", "odd": 1}}, "target.odd"),
    ],
)
async def test_actions(cluster: Cluster, subresource: str, document: dict[str, Any], unknown: str) -> None:
    await cluster.create("pods", {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    how: dict[str, Any] = {"name": "p", "subresource": subresource}
    with pytest.raises(ApiError) as refused:
        await cluster.create("pods", document, **how, field_validation="Strict")
    assert refused.value.message.endswith(f'strict decoding error: unknown field "{unknown}"')
    written = await cluster.write_new(cluster.kind("pods"), document, "default", **how, field_validation="Warn")
    assert written.warnings == (f'unknown field "{unknown}"',)
