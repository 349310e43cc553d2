"""The resize subresource: what of a pod it changes, what it leaves alone, and who has a say in it."""

from typing import Any

import pytest

from api.errors import Forbidden, Invalid
from tests.contract.storage.conftest import Cluster

RESOURCES = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}}


def container(name: str = "main", resources: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "i", "resources": RESOURCES if resources is None else resources, **more}


async def new_pod(cluster: Cluster, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    document = {"metadata": {"name": "web"}, "spec": {"containers": list(containers) or [container()], **spec}}
    return await cluster.create("pods", document)


async def resize(cluster: Cluster, *containers: dict[str, Any], how: str = "strategic", **more: Any) -> dict[str, Any]:
    patch = {"spec": {"containers": list(containers), **more}}
    return await cluster.patch("pods", "web", patch, how, subresource="resize")


async def test_only_resources_change(cluster: Cluster) -> None:
    before = await new_pod(cluster)
    policy = [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]
    wanted = {"name": "main", "image": "another", "resources": {"limits": {"cpu": "400m"}}, "resizePolicy": policy}
    after = await resize(cluster, wanted, priority=7, nodeName="elsewhere")
    (main,) = after["spec"]["containers"]
    assert main["resources"] == {
        "requests": {"cpu": "100m", "memory": "64Mi"},
        "limits": {"cpu": "400m", "memory": "128Mi"},
    }
    assert (main["image"], main["resizePolicy"]) == ("i", policy)
    assert "nodeName" not in after["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    managers = {each.get("subresource") for each in after["metadata"]["managedFields"]}
    assert "resize" in managers
    same = await resize(cluster, {"name": "main", "resources": {"limits": {"cpu": "400m"}}})
    assert same["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]


async def test_an_update_of_the_pod_itself_resizes_nothing(cluster: Cluster) -> None:
    await new_pod(cluster)
    patch = {"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "400m"}}}]}}
    with pytest.raises(Invalid, match="pod updates may not change fields other than"):
        await cluster.patch("pods", "web", patch, "strategic")


async def test_a_resize_is_applied_by_its_manager(cluster: Cluster) -> None:
    await new_pod(cluster)
    intent = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "main", "image": "not mine", "resources": {"limits": {"cpu": "300m"}}}]},
    }
    options = {"field_manager": "scaler", "force": True}
    after = await cluster.patch("pods", "web", intent, "apply", subresource="resize", **options)
    (main,) = after["spec"]["containers"]
    assert (main["image"], main["resources"]["limits"]["cpu"]) == ("i", "300m")
    (mine,) = [each for each in after["metadata"]["managedFields"] if each.get("manager") == "scaler"]
    assert (mine["operation"], mine["subresource"]) == ("Apply", "resize")


async def test_a_quota_pays_for_what_a_pod_grows_by(cluster: Cluster) -> None:
    quota = await cluster.create(
        "resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "300m"}}}
    )
    quota["status"] = {"hard": {"requests.cpu": "300m"}, "used": {"requests.cpu": "0"}}
    await cluster.update("resourcequotas", quota, subresource="status")
    await cluster.get("resourcequotas", "q")  # a read waits for the cache, which admission looks into as it is
    await new_pod(cluster)
    await resize(cluster, {"name": "main", "resources": {"requests": {"cpu": "200m"}}})
    assert (await cluster.get("resourcequotas", "q"))["status"]["used"] == {"requests.cpu": "200m"}
    with pytest.raises(Forbidden, match=r"exceeded quota: q, requested: requests.cpu=200m"):
        await resize(cluster, {"name": "main", "resources": {"requests": {"cpu": "400m"}, "limits": {"cpu": "400m"}}})


async def test_limit_ranges_hold_for_what_a_pod_is_resized_to(cluster: Cluster) -> None:
    await new_pod(cluster)
    item = {"type": "Container", "max": {"cpu": "300m"}}
    await cluster.create("limitranges", {"metadata": {"name": "r"}, "spec": {"limits": [item]}})
    await cluster.get("limitranges", "r")
    with pytest.raises(Forbidden, match="maximum cpu usage per Container is 300m, but limit is 400m"):
        await resize(cluster, {"name": "main", "resources": {"limits": {"cpu": "400m"}}})
