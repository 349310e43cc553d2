"""The verbs as the real API server's clients rely on them."""

import asyncio
from typing import Any, ClassVar

import pytest

from api.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    RequestTooLarge,
    TooManyRequests,
)
from master.access.user import SYSTEM_NODES, User
from tests.contract.storage.conftest import Cluster

POD: dict[str, Any] = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def deployment(name: str = "web", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
            **spec,
        },
    }


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


class TestCreate:
    async def test_fills_in_what_the_server_owns(self, cluster: Cluster) -> None:
        made = await cluster.create("deployments.apps", {**deployment(), "status": {"replicas": 7}})
        meta = made["metadata"]
        assert meta["generation"] == 1
        assert meta["namespace"] == "default"
        assert len(meta["uid"]) == 36
        assert meta["creationTimestamp"].endswith("Z")
        assert int(meta["resourceVersion"]) > 0
        assert made["status"] == {}, "a new object's status is the server's"
        assert made == await cluster.get("deployments.apps", "web")

    async def test_name_that_is_taken(self, cluster: Cluster) -> None:
        await cluster.create("configmaps", config_map("a"))
        with pytest.raises(AlreadyExists, match='configmaps "a" already exists'):
            await cluster.create("configmaps", config_map("a"))

    async def test_generated_names_differ(self, cluster: Cluster) -> None:
        document = {"metadata": {"generateName": "x-"}}
        made = await asyncio.gather(*(cluster.create("configmaps", document) for _ in range(20)))
        names = {each["metadata"]["name"] for each in made}
        assert len(names) == 20
        assert all(name.startswith("x-") and len(name) == 7 for name in names)

    async def test_without_a_name(self, cluster: Cluster) -> None:
        with pytest.raises(Invalid, match="name or generateName is required"):
            await cluster.create("configmaps", {"metadata": {}})

    async def test_in_a_namespace_that_is_missing(self, cluster: Cluster) -> None:
        with pytest.raises(NotFound, match='namespaces "nope" not found'):
            await cluster.create("configmaps", {"metadata": {"name": "UPPER"}}, namespace="nope")

    async def test_with_a_resource_version(self, cluster: Cluster) -> None:
        with pytest.raises(BadRequest, match="resourceVersion should not be set"):
            await cluster.create("configmaps", {"metadata": {"name": "a", "resourceVersion": "5"}})

    async def test_all_faults_at_once(self, cluster: Cluster) -> None:
        document = {"metadata": {"name": "Bad_Name"}, "spec": {"containers": []}}
        with pytest.raises(Invalid) as refusal:
            await cluster.create("pods", document)
        assert {cause.field for cause in refusal.value.causes} == {"metadata.name", "spec.containers"}

    async def test_dry_run_stores_nothing(self, cluster: Cluster) -> None:
        made = await cluster.create("services", service("dry"), dry_run=True)
        assert "resourceVersion" not in made["metadata"]
        with pytest.raises(NotFound):
            await cluster.get("services", "dry")

    @pytest.mark.parametrize("strictness", ["Strict", "Warn", "Ignore"])
    async def test_unknown_fields(self, cluster: Cluster, strictness: str) -> None:
        document = {**config_map("a"), "datum": 1}
        kind = cluster.kind("configmaps")
        if strictness == "Strict":
            with pytest.raises(BadRequest, match='strict decoding error: unknown field "datum"'):
                await cluster.write_new(kind, document, "default", field_validation=strictness)
        else:
            written = await cluster.write_new(kind, document, "default", field_validation=strictness)
            assert written.warnings == (('unknown field "datum"',) if strictness == "Warn" else ())

    async def test_what_is_accepted_and_means_little_is_told(self, cluster: Cluster) -> None:
        twice = [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]
        told = 'env[1]: hides previous definition of "a", which may be dropped when using apply'
        template = {"spec": {"containers": [{"name": "c", "image": "i", "env": twice}]}}
        written = await cluster.write_new(cluster.kind("pods"), {**POD, **template}, "default")
        assert written.warnings == (f"spec.containers[0].{told}",)
        await cluster.create("deployments.apps", deployment())
        patch: Any = {"spec": {"template": template}}
        for what, expected in (
            (patch, (f"spec.template.spec.containers[0].{told}",)),
            ({"spec": {"replicas": 2}}, (f"spec.template.spec.containers[0].{told}",)),
            ({"metadata": {"labels": {"x": "y"}}}, ()),
        ):
            written = await cluster.write_patch("deployments.apps", "web", what)
            assert written.warnings == expected

    async def test_too_large(self, cluster: Cluster) -> None:
        with pytest.raises((RequestTooLarge, Invalid)):
            await cluster.create("configmaps", config_map("a", x="x" * 2_000_000))


class TestUpdate:
    async def test_needs_the_newest_version(self, cluster: Cluster) -> None:
        made = await cluster.create("configmaps", config_map("a", x="1"))
        await cluster.update("configmaps", {**made, "data": {"x": "2"}})
        with pytest.raises(Conflict, match="the object has been modified"):
            await cluster.update("configmaps", {**made, "data": {"x": "3"}})
        assert (await cluster.get("configmaps", "a"))["data"] == {"x": "2"}

    async def test_without_a_version_is_unconditional(self, cluster: Cluster) -> None:
        made = await cluster.create("configmaps", config_map("a", x="1"))
        del made["metadata"]["resourceVersion"]
        assert (await cluster.update("configmaps", {**made, "data": {"x": "3"}}))["data"] == {"x": "3"}

    async def test_without_a_version_where_one_is_demanded(self, cluster: Cluster) -> None:
        lease = {"metadata": {"name": "a", "namespace": "default"}, "spec": {"holderIdentity": "x"}}
        await cluster.create("leases.coordination.k8s.io", lease)
        with pytest.raises(Invalid, match="must be specified for an update"):
            await cluster.update("leases.coordination.k8s.io", lease)

    async def test_of_another_life(self, cluster: Cluster) -> None:
        made = await cluster.create("configmaps", config_map("a"))
        await cluster.delete("configmaps", "a")
        await cluster.create("configmaps", config_map("a"))
        del made["metadata"]["resourceVersion"]
        with pytest.raises(Conflict, match="UID in precondition"):
            await cluster.update("configmaps", made)

    async def test_of_what_is_missing(self, cluster: Cluster) -> None:
        with pytest.raises(NotFound, match='configmaps "a" not found'):
            await cluster.update("configmaps", {"metadata": {"name": "a", "namespace": "default"}})

    async def test_that_changes_nothing_writes_nothing(self, cluster: Cluster) -> None:
        made = await cluster.create("deployments.apps", deployment())
        assert await cluster.update("deployments.apps", made) == made
        assert await cluster.patch("deployments.apps", "web", {"spec": {"replicas": 1}}) == made

    async def test_generation_counts_specs_alone(self, cluster: Cluster) -> None:
        await cluster.create("replicasets.apps", deployment("rs"))
        labelled = await cluster.patch("replicasets.apps", "rs", {"metadata": {"labels": {"a": "b"}}})
        scaled = await cluster.patch("replicasets.apps", "rs", {"spec": {"replicas": 4}})
        status = await cluster.patch("replicasets.apps", "rs", {"status": {"replicas": 2}}, subresource="status")
        assert [each["metadata"]["generation"] for each in (labelled, scaled, status)] == [1, 2, 2]

    async def test_main_and_status_are_written_apart(self, cluster: Cluster) -> None:
        made = await cluster.create("replicasets.apps", deployment("rs"))
        changed = {**made, "status": {"replicas": 3}, "spec": {**made["spec"], "replicas": 5}}
        status = await cluster.update("replicasets.apps", changed, subresource="status")
        assert (status["spec"]["replicas"], status["status"]["replicas"]) == (1, 3)
        changed = {**status, "status": {"replicas": 9}, "spec": {**made["spec"], "replicas": 5}}
        main = await cluster.update("replicasets.apps", changed)
        assert (main["spec"]["replicas"], main["status"]["replicas"]) == (5, 3)

    async def test_what_no_client_may_change(self, cluster: Cluster) -> None:
        made = await cluster.create("configmaps", config_map("a"))
        patch = {"metadata": {"creationTimestamp": "2000-01-01T00:00:00Z", "deletionTimestamp": "2000-01-01T00:00:00Z"}}
        assert await cluster.patch("configmaps", "a", patch) == made


class TestPatch:
    async def test_concurrent_patches_all_take_effect(self, cluster: Cluster) -> None:
        await cluster.create("configmaps", config_map("a"))
        await asyncio.gather(*(cluster.patch("configmaps", "a", {"data": {f"k{n}": "v"}}) for n in range(6)))
        assert len((await cluster.get("configmaps", "a"))["data"]) == 6

    async def test_with_a_version_that_is_old(self, cluster: Cluster) -> None:
        made = await cluster.create("configmaps", config_map("a"))
        await cluster.patch("configmaps", "a", {"data": {"x": "1"}})
        patch = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"x": "2"}}
        with pytest.raises(Conflict):
            await cluster.patch("configmaps", "a", patch)

    async def test_strategic_merges_by_key(self, cluster: Cluster) -> None:
        await cluster.create("deployments.apps", deployment())
        template = {"spec": {"containers": [{"name": "side", "image": "s"}]}}
        patched = await cluster.patch("deployments.apps", "web", {"spec": {"template": template}}, "strategic")
        assert [each["name"] for each in patched["spec"]["template"]["spec"]["containers"]] == ["side", "c"] or [
            each["name"] for each in patched["spec"]["template"]["spec"]["containers"]
        ] == ["c", "side"]

    async def test_json_patch_whose_test_fails(self, cluster: Cluster) -> None:
        await cluster.create("configmaps", config_map("a", x="1"))
        with pytest.raises(Invalid):
            await cluster.patch("configmaps", "a", [{"op": "test", "path": "/data/x", "value": "2"}], "json")

    async def test_may_not_rename(self, cluster: Cluster) -> None:
        await cluster.create("configmaps", config_map("a"))
        with pytest.raises(Invalid, match=r"metadata\.name"):
            await cluster.patch("configmaps", "a", {"metadata": {"name": "b"}})


class TestDelete:
    async def test_is_gone(self, cluster: Cluster) -> None:
        await cluster.create("configmaps", config_map("a"))
        deleted = await cluster.delete("configmaps", "a")
        assert deleted.gone
        with pytest.raises(NotFound):
            await cluster.get("configmaps", "a")
        with pytest.raises(NotFound):
            await cluster.delete("configmaps", "a")

    async def test_preconditions(self, cluster: Cluster) -> None:
        made = await cluster.create("configmaps", config_map("a"))
        for wrong in ({"uid": "other"}, {"version": "1"}):
            with pytest.raises(Conflict, match="in the precondition"):
                await cluster.delete("configmaps", "a", **wrong)
        meta = made["metadata"]
        assert (await cluster.delete("configmaps", "a", uid=meta["uid"], version=meta["resourceVersion"])).gone

    async def test_finalizers_hold_until_the_last_is_taken_away(self, cluster: Cluster) -> None:
        await cluster.create("configmaps", {"metadata": {"name": "a", "finalizers": ["x/1", "x/2"]}})
        assert not (await cluster.delete("configmaps", "a")).gone
        held = await cluster.get("configmaps", "a")
        assert held["metadata"]["deletionTimestamp"]
        again = await cluster.delete("configmaps", "a")
        assert not again.gone
        assert again.stored.revision == int(held["metadata"]["resourceVersion"]), "deleting twice changes nothing"
        await cluster.patch("configmaps", "a", {"metadata": {"finalizers": ["x/2"]}})
        with pytest.raises(Invalid, match="no new finalizers can be added"):
            await cluster.patch("configmaps", "a", {"metadata": {"finalizers": ["x/2", "x/3"]}})
        await cluster.patch("configmaps", "a", {"metadata": {"finalizers": None}})
        with pytest.raises(NotFound):
            await cluster.get("configmaps", "a")

    @pytest.mark.parametrize(
        ("policy", "finalizers"), [("Foreground", ["foregroundDeletion"]), ("Orphan", ["orphan"]), ("Background", None)]
    )
    async def test_propagation(self, cluster: Cluster, policy: str, finalizers: list[str] | None) -> None:
        await cluster.create("deployments.apps", deployment())
        deleted = await cluster.delete("deployments.apps", "web", propagation_policy=policy)
        assert deleted.gone is (finalizers is None)
        if finalizers is not None:
            assert (await cluster.get("deployments.apps", "web"))["metadata"]["finalizers"] == finalizers

    async def test_replication_controllers_orphan_unless_told_otherwise(self, cluster: Cluster) -> None:
        document = deployment("rc")
        document["spec"]["selector"] = {"app": "rc"}
        await cluster.create("replicationcontrollers", document)
        assert not (await cluster.delete("replicationcontrollers", "rc")).gone

    async def test_collection(self, cluster: Cluster) -> None:
        for n in range(5):
            await cluster.create("configmaps", {"metadata": {"name": f"c{n}", "labels": {"odd": str(n % 2)}}})
        from api.meta import DeleteOptions
        from master.rest.seam import Query
        from tests.contract.storage.conftest import ADMIN

        query = Query(namespace="default", label_selector="odd=1")
        gone = await cluster.registry.delete_collection(
            cluster.kind("configmaps"), query, options=DeleteOptions(), user=ADMIN
        )
        assert sorted(each.name for each in gone) == ["c1", "c3"]
        assert await cluster.names("configmaps", namespace="default") == ["c0", "c2", "c4"]

    async def test_dry_run_leaves_it(self, cluster: Cluster) -> None:
        await cluster.create("configmaps", config_map("a"))
        assert (await cluster.delete("configmaps", "a", dry_run=("All",))).gone
        await cluster.get("configmaps", "a")


class TestPods:
    async def bound(self, cluster: Cluster, name: str = "web") -> dict[str, Any]:
        await cluster.create("pods", {**POD, "metadata": {"name": name, "labels": {"app": "web"}}})
        await cluster.create("pods", {"target": {"kind": "Node", "name": "node1"}}, name=name, subresource="binding")
        return await cluster.get("pods", name)

    async def test_begin_pending(self, cluster: Cluster) -> None:
        made = await cluster.create("pods", POD)
        assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}

    async def test_are_bound_once(self, cluster: Cluster) -> None:
        pod = await self.bound(cluster)
        assert pod["spec"]["nodeName"] == "node1"
        assert [(each["type"], each["status"]) for each in pod["status"]["conditions"]] == [("PodScheduled", "True")]
        with pytest.raises(Conflict, match="already assigned to node"):
            await cluster.create("pods", {"target": {"name": "node2"}}, name="web", subresource="binding")

    async def test_are_bound_by_an_object_of_its_own(self, cluster: Cluster) -> None:
        await cluster.create("pods", POD)
        with pytest.raises(Invalid, match=r"metadata\.name"):
            await cluster.create("bindings", {"target": {"name": "n1"}})
        await cluster.create("bindings", {"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"}})
        assert (await cluster.get("pods", "web"))["spec"]["nodeName"] == "n1"
        with pytest.raises(Conflict, match="already assigned"):
            await cluster.create("bindings", {"metadata": {"name": "web"}, "target": {"name": "n2"}})
        found = await cluster.core.storage.client.range(b"/registry/bindings/", b"/registry/bindings0")
        assert not found.kvs, "it says what to do and is not kept"

    async def test_binding_means_one_pod_not_one_name(self, cluster: Cluster) -> None:
        await cluster.create("pods", POD)
        binding = {"metadata": {"uid": "another"}, "target": {"name": "node1"}}
        with pytest.raises(Conflict, match="UID in precondition"):
            await cluster.create("pods", binding, name="web", subresource="binding")

    async def test_unscheduled_go_at_once(self, cluster: Cluster) -> None:
        await cluster.create("pods", POD)
        assert (await cluster.delete("pods", "web")).gone

    async def test_finished_go_at_once(self, cluster: Cluster) -> None:
        await self.bound(cluster)
        await cluster.patch("pods", "web", {"status": {"phase": "Succeeded"}}, subresource="status")
        assert (await cluster.delete("pods", "web")).gone

    async def test_running_get_grace_until_their_agent_deletes_them(self, cluster: Cluster) -> None:
        await self.bound(cluster)
        assert not (await cluster.delete("pods", "web")).gone
        meta = (await cluster.get("pods", "web"))["metadata"]
        assert meta["deletionGracePeriodSeconds"] == 30
        assert not (await cluster.delete("pods", "web", grace_period_seconds=60)).gone, "grace gets no longer"
        assert (await cluster.get("pods", "web"))["metadata"] == meta
        assert not (await cluster.delete("pods", "web", grace_period_seconds=5)).gone
        shorter = (await cluster.get("pods", "web"))["metadata"]
        assert shorter["deletionGracePeriodSeconds"] == 5
        assert shorter["deletionTimestamp"] < meta["deletionTimestamp"]
        assert (await cluster.delete("pods", "web", grace_period_seconds=0)).gone

    async def test_being_deleted_are_not_bound(self, cluster: Cluster) -> None:
        await cluster.create("pods", {**POD, "metadata": {"name": "web", "finalizers": ["x/y"]}})
        await cluster.delete("pods", "web")
        with pytest.raises(Conflict, match="is being deleted"):
            await cluster.create("pods", {"target": {"name": "node1"}}, name="web", subresource="binding")

    async def test_eviction_asks_the_budget(self, cluster: Cluster) -> None:
        await self.bound(cluster, "one")
        await self.bound(cluster, "two")
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        for name in ("one", "two"):
            await cluster.patch("pods", name, {"status": ready}, subresource="status")
        budget = {"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 1}}
        await cluster.create("poddisruptionbudgets.policy", budget)
        with pytest.raises(TooManyRequests, match="violate the pod's disruption budget") as refused:
            await cluster.create("pods", {}, name="one", subresource="eviction")
        assert "still being processed" in refused.value.causes[0].message
        status = {"status": {"observedGeneration": 1, "disruptionsAllowed": 1}}
        await cluster.patch("poddisruptionbudgets.policy", "b", status, subresource="status")
        tried = {"deleteOptions": {"dryRun": ["All"]}}  # as kubectl drain --dry-run=server says it
        await cluster.create("pods", tried, name="one", subresource="eviction")
        await cluster.create("pods", {}, name="one", subresource="eviction")
        evicted = await cluster.get("pods", "one")
        assert evicted["metadata"]["deletionTimestamp"]
        reasons = {each["type"]: each.get("reason") for each in evicted["status"]["conditions"]}
        assert reasons["DisruptionTarget"] == "EvictionByEvictionAPI"
        with pytest.raises(TooManyRequests) as refused:
            await cluster.create("pods", {}, name="two", subresource="eviction")
        assert "needs 0 healthy pods and has 0 currently" in refused.value.causes[0].message

    async def test_a_pod_that_serves_nobody_is_evicted_for_nothing(self, cluster: Cluster) -> None:
        await self.bound(cluster, "sick")
        unready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}
        await cluster.patch("pods", "sick", {"status": unready}, subresource="status")
        budget = {"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 1}}
        await cluster.create("poddisruptionbudgets.policy", budget)
        status = {"status": {"observedGeneration": 1, "desiredHealthy": 1, "currentHealthy": 0}}
        await cluster.patch("poddisruptionbudgets.policy", "b", status, subresource="status")
        with pytest.raises(TooManyRequests):
            await cluster.create("pods", {}, name="sick", subresource="eviction")
        always = {"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}
        await cluster.patch("poddisruptionbudgets.policy", "b", always)
        await cluster.create("pods", {}, name="sick", subresource="eviction")
        assert (await cluster.get("pods", "sick"))["metadata"]["deletionTimestamp"]

    async def test_a_budget_that_goes_meanwhile_is_not_taken_for_the_pod(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``kubectl drain`` takes a pod that is not found for one that has left."""
        await self.bound(cluster, "web")
        await cluster.patch("pods", "web", {"status": {"phase": "Running"}}, subresource="status")
        budget = {"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 1}}
        await cluster.create("poddisruptionbudgets.policy", budget)
        evictions = cluster.registry._evictions
        delete = evictions._delete

        async def delete_late(*args: Any, **options: Any) -> Any:
            await cluster.delete("poddisruptionbudgets.policy", "b")
            return await delete(*args, **options)

        monkeypatch.setattr(evictions, "_delete", delete_late)
        with pytest.raises(TooManyRequests):
            await cluster.create("pods", {}, name="web", subresource="eviction")
        monkeypatch.undo()
        await cluster.create("pods", {}, name="web", subresource="eviction")
        assert (await cluster.get("pods", "web"))["metadata"]["deletionTimestamp"]

    async def test_a_pod_that_became_healthy_meanwhile_is_not_spared(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was let go because it served nobody; by the time of its deletion it does."""
        await self.bound(cluster, "slow")
        await cluster.patch("pods", "slow", {"status": {"phase": "Running"}}, subresource="status")
        budget = {
            "metadata": {"name": "b"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "unhealthyPodEvictionPolicy": "AlwaysAllow"},
        }
        await cluster.create("poddisruptionbudgets.policy", budget)
        evictions = cluster.registry._evictions
        delete = evictions._delete

        async def delete_late(*args: Any, **options: Any) -> Any:
            ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
            await cluster.patch("pods", "slow", ready, subresource="status")
            return await delete(*args, **options)

        monkeypatch.setattr(evictions, "_delete", delete_late)
        with pytest.raises(TooManyRequests) as refused:
            await cluster.create("pods", {}, name="slow", subresource="eviction")
        assert "still being processed" in refused.value.causes[0].message
        assert "deletionTimestamp" not in (await cluster.get("pods", "slow"))["metadata"]

    async def test_node_agents_write_only_their_own(self, cluster: Cluster) -> None:
        await self.bound(cluster)
        status = {"status": {"phase": "Running"}}
        agents = {name: User(f"system:node:{name}", (SYSTEM_NODES,)) for name in ("node1", "node2")}
        with pytest.raises(Forbidden, match="node2"):
            await cluster.patch("pods", "web", status, subresource="status", user=agents["node2"])
        await cluster.patch("pods", "web", status, subresource="status", user=agents["node1"])
        with pytest.raises(Forbidden):
            await cluster.patch("pods", "web", {"metadata": {"labels": {"a": "b"}}}, user=agents["node1"])


class TestNamespaces:
    async def test_are_emptied_before_they_go(self, cluster: Cluster) -> None:
        await cluster.create("namespaces", {"metadata": {"name": "ns"}})
        await cluster.create("configmaps", config_map("a"), namespace="ns")
        deleted = await cluster.delete("namespaces", "ns")
        assert not deleted.gone
        namespace = await cluster.get("namespaces", "ns")
        assert namespace["status"]["phase"] == "Terminating"
        with pytest.raises(Forbidden, match="because it is being terminated") as refusal:
            await cluster.create("configmaps", config_map("b"), namespace="ns")
        assert refusal.value.causes[0].reason == "NamespaceTerminating"
        await cluster.update("namespaces", {**namespace, "spec": {}}, subresource="finalize")
        with pytest.raises(NotFound):
            await cluster.get("namespaces", "ns")

    async def test_of_the_system_stay(self, cluster: Cluster) -> None:
        with pytest.raises(Forbidden, match="may not be deleted"):
            await cluster.delete("namespaces", "default")


class TestScale:
    async def test_reads_and_writes_replicas(self, cluster: Cluster) -> None:
        await cluster.create("deployments.apps", deployment())
        scale = await cluster.get("deployments.apps", "web", subresource="scale")
        assert scale["kind"] == "Scale"
        assert scale["spec"] == {"replicas": 1}
        assert scale["status"] == {"replicas": 0, "selector": "app=web"}
        scaled = await cluster.update("deployments.apps", {**scale, "spec": {"replicas": 3}}, subresource="scale")
        assert scaled["spec"]["replicas"] == 3
        patched = await cluster.patch("deployments.apps", "web", {"spec": {"replicas": 0}}, subresource="scale")
        assert patched["kind"] == "Scale"
        found = await cluster.get("deployments.apps", "web")
        assert (found["spec"]["replicas"], found["metadata"]["generation"]) == (0, 3)

    async def test_old_version_is_refused(self, cluster: Cluster) -> None:
        await cluster.create("deployments.apps", deployment())
        scale = await cluster.get("deployments.apps", "web", subresource="scale")
        await cluster.patch("deployments.apps", "web", {"spec": {"replicas": 2}})
        with pytest.raises(Conflict):
            await cluster.update("deployments.apps", {**scale, "spec": {"replicas": 3}}, subresource="scale")


class TestServices:
    async def test_addresses_and_ports_are_unique_however_many_ask_at_once(self, cluster: Cluster) -> None:
        made = await asyncio.gather(*(cluster.create("services", service(f"s{n}", type="NodePort")) for n in range(10)))
        assert len({each["spec"]["clusterIP"] for each in made}) == 10
        assert {each["spec"]["ports"][0]["nodePort"] for each in made} == set(range(30000, 30010))
        from api.errors import InternalError

        with pytest.raises(InternalError, match="range is full"):
            await cluster.create("services", service("more", type="NodePort"))

    async def test_chosen_address_that_is_taken(self, cluster: Cluster) -> None:
        await cluster.create("services", service("a", clusterIP="10.96.0.10"))
        with pytest.raises(Invalid, match="provided IP is already allocated"):
            await cluster.create("services", service("b", clusterIP="10.96.0.10"))
        with pytest.raises(Invalid, match="not in the valid range"):
            await cluster.create("services", service("b", clusterIP="10.97.0.10"))
        await cluster.delete("services", "a")
        await cluster.create("services", service("b", clusterIP="10.96.0.10"))

    async def test_chosen_port_that_is_taken(self, cluster: Cluster) -> None:
        await cluster.create("services", service("a", type="NodePort", ports=[{"port": 80, "nodePort": 30003}]))
        with pytest.raises(Invalid, match="provided port is already allocated"):
            await cluster.create("services", service("b", type="NodePort", ports=[{"port": 80, "nodePort": 30003}]))
        await cluster.create("services", service("c", type="NodePort"))
        with pytest.raises(Invalid, match="provided port is already allocated"):
            await cluster.patch("services", "c", {"spec": {"ports": [{"port": 80, "nodePort": 30003}]}})

    async def test_updates_keep_what_they_do_not_mention(self, cluster: Cluster) -> None:
        made = await cluster.create("services", service("a", type="NodePort"))
        update = {**service("a", type="NodePort"), "metadata": {"name": "a", "namespace": "default"}}
        update["spec"]["selector"] = {"x": "y"}
        updated = await cluster.update("services", {"apiVersion": "v1", "kind": "Service", **update})
        assert updated["spec"]["clusterIP"] == made["spec"]["clusterIP"]
        assert updated["spec"]["ports"] == made["spec"]["ports"]

    async def test_another_type_gives_back_and_takes(self, cluster: Cluster) -> None:
        for _ in range(3):
            made = await cluster.create("services", service("a", type="NodePort"))
            assert made["spec"]["ports"][0]["nodePort"]
            plain = await cluster.patch("services", "a", {"spec": {"type": "ClusterIP"}})
            assert "nodePort" not in plain["spec"]["ports"][0]
            port = (await cluster.patch("services", "a", {"spec": {"type": "NodePort"}}))["spec"]["ports"][0]
            assert port["nodePort"] in range(30000, 30010)
            await cluster.delete("services", "a")
        claims = await cluster.core.storage.client.range(b"/registry-alloc/", b"/registry-alloc0")
        assert claims.kvs == [], "nothing leaks"

    async def test_headless_and_external_take_nothing(self, cluster: Cluster) -> None:
        headless = await cluster.create("services", service("a", clusterIP="None"))
        assert headless["spec"]["clusterIP"] == "None"
        external = {"metadata": {"name": "b"}, "spec": {"type": "ExternalName", "externalName": "example.org"}}
        assert "clusterIP" not in (await cluster.create("services", external))["spec"]

    async def test_one_number_serves_tcp_and_udp(self, cluster: Cluster) -> None:
        ports = [{"name": n, "port": 53, "protocol": p} for n, p in (("udp", "UDP"), ("tcp", "TCP"))]
        made = await cluster.create("services", service("dns", type="NodePort", ports=ports))
        assert len({port["nodePort"] for port in made["spec"]["ports"]}) == 1


class TestEvents:
    EVENT: ClassVar[dict[str, Any]] = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default"},
        "reason": "Started",
        "message": "hello",
        "count": 2,
        "type": "Normal",
    }

    async def test_have_two_faces(self, cluster: Cluster) -> None:
        await cluster.create("events", self.EVENT)
        newer = await cluster.get("events.events.k8s.io", "e")
        assert newer["apiVersion"] == "events.k8s.io/v1"
        assert newer["regarding"]["name"] == "web"
        assert (newer["note"], newer["deprecatedCount"]) == ("hello", 2)
        assert newer["eventTime"] is None, "Go's clients read no time in an empty text"
        series = {"count": 3, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}
        patched = await cluster.patch("events.events.k8s.io", "e", {"series": series})
        assert patched["series"] == series
        core = await cluster.get("events", "e")
        assert (core["apiVersion"], core["series"]["count"]) == ("v1", 3)

    async def test_the_newer_face_lets_only_the_series_change(self, cluster: Cluster) -> None:
        await cluster.create("events", self.EVENT)
        with pytest.raises(Invalid, match=r'message: Invalid value: "bye": field is immutable'):
            await cluster.patch("events.events.k8s.io", "e", {"note": "bye"})
        with pytest.raises(Invalid, match=r'series.count: Invalid value: "": should be at least 2'):
            await cluster.patch("events.events.k8s.io", "e", {"series": {"count": 1}})
        assert (await cluster.patch("events", "e", {"message": "bye"}))["message"] == "bye"

    async def test_the_newer_face_wants_none_of_the_old_fields(self, cluster: Cluster) -> None:
        event = {
            "metadata": {"name": "n"},
            "regarding": {"kind": "Pod", "name": "web", "namespace": "default"},
            "reason": "Started",
            "action": "Start",
            "note": "hello",
            "type": "Normal",
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "example.com/me",
            "reportingInstance": "me-0",
        }
        old = {"deprecatedCount": 1, "deprecatedSource": {"component": "me"}, "type": "Odd"}
        with pytest.raises(Invalid) as refused:
            await cluster.create("events.events.k8s.io", event | old)
        assert [(each.field, each.message) for each in refused.value.causes] == [
            ("type", 'Invalid value: "": has invalid value: Odd'),
            ("count", 'Invalid value: "": needs to be unset'),
            ("source", 'Invalid value: "": needs to be unset'),
        ]
        assert (await cluster.create("events.events.k8s.io", event))["note"] == "hello"

    async def test_are_selected_by_what_they_are_about(self, cluster: Cluster) -> None:
        await cluster.create("events", self.EVENT)
        other = {**self.EVENT, "metadata": {"name": "f"}, "involvedObject": {"kind": "Pod", "name": "db"}}
        await cluster.create("events", other)
        query = {"namespace": "default", "field_selector": "involvedObject.name=web"}
        assert await cluster.names("events", **query) == ["e"]

    async def test_are_forgotten_by_the_store(self, cluster: Cluster) -> None:
        await cluster.create("events", self.EVENT)
        found, _ = await cluster.core.storage.client.get(b"/registry/events/default/e")
        assert found is not None
        assert found.lease != 0


class TestApply:
    async def apply(self, cluster: Cluster, manager: str, data: dict[str, str], **more: Any) -> dict[str, Any]:
        return await cluster.patch(
            "configmaps", "a", {**config_map("a"), "data": data}, "apply", field_manager=manager, **more
        )

    async def test_creates_changes_and_takes_away(self, cluster: Cluster) -> None:
        made = await self.apply(cluster, "one", {"x": "1", "y": "1"})
        assert made["metadata"]["managedFields"][0]["manager"] == "one"
        assert await self.apply(cluster, "one", {"x": "1", "y": "1"}) == made, "applying again changes nothing"
        assert (await self.apply(cluster, "one", {"x": "2"}))["data"] == {"x": "2"}

    async def test_conflicts_with_another_manager_unless_forced(self, cluster: Cluster) -> None:
        await self.apply(cluster, "one", {"x": "1"})
        with pytest.raises(Conflict) as refusal:
            await self.apply(cluster, "two", {"x": "2"})
        assert {cause.reason for cause in refusal.value.causes} == {"FieldManagerConflict"}
        assert (await self.apply(cluster, "two", {"x": "2"}, force=True))["data"] == {"x": "2"}
        with pytest.raises(Conflict):
            await self.apply(cluster, "one", {"x": "1"})

    async def test_updates_take_fields_over(self, cluster: Cluster) -> None:
        await self.apply(cluster, "one", {"x": "1", "y": "1"})
        await cluster.patch("configmaps", "a", {"data": {"x": "2"}}, field_manager="editor")
        with pytest.raises(Conflict) as refusal:
            await self.apply(cluster, "one", {"x": "1", "y": "1"})
        assert [cause.field for cause in refusal.value.causes] == [".data.x"]

    async def test_who_leaves_the_bookkeeping_out_leaves_it_as_it_is(self, cluster: Cluster) -> None:
        made = await self.apply(cluster, "one", {"x": "1"})
        for left in ({}, {"managedFields": []}):
            meta = {key: each for key, each in made["metadata"].items() if key != "managedFields"}
            bare = {**made, "metadata": {**meta, **left}}
            assert await cluster.update("configmaps", bare) == made

    async def test_bookkeeping_is_not_the_clients_to_write(self, cluster: Cluster) -> None:
        made = await self.apply(cluster, "one", {"x": "1"})
        forged = {**made, "metadata": {**made["metadata"], "managedFields": [{"manager": "forged"}]}}
        assert await cluster.update("configmaps", forged) == made
        cleared = {**made, "metadata": {**made["metadata"], "managedFields": [{}]}}
        assert "managedFields" not in (await cluster.update("configmaps", cleared))["metadata"]
