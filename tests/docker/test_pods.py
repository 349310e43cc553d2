"""Pods as real containers: from a Pod object to processes and back to its status."""

import asyncio
import socket

import pytest

from api.kinds.core import ConfigMap, Node, Secret
from api.kinds.pods import Pod
from api.meta import ObjectMeta
from node_agent.runtime.base import LogOptions
from tests.docker.agents import IMAGE, SLEEP, Lab, eventually, lab, shell, tools_image

pytestmark = pytest.mark.docker
__all__ = ["lab", "tools_image"]


async def output(lab: Lab, agent: object, name: str) -> str:
    """Return all that the newest instance of the pod's first container wrote."""
    runtime = agent._runtime
    found = await runtime.containers(lab.pod(name).metadata.uid)
    parts = [part.data async for part in runtime.logs(found[0].id, LogOptions())]
    return b"".join(parts).decode()


def test_a_pod_runs_gets_ready_and_goes(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        async with lab.agent():
            await lab.create(
                "web",
                {
                    "containers": [
                        {
                            "name": "web",
                            "image": IMAGE,
                            "command": ["/bin/web"],
                            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
                        }
                    ]
                },
            )
            pod = await lab.ready("web")
            assert pod.status.phase == "Running"
            assert pod.status.pod_ip.startswith("10.244.7.")
            assert pod.status.host_ip == "127.0.0.1"
            assert pod.status.qos_class == "BestEffort"
            assert pod.status.container_statuses[0].container_id.startswith("docker://")
            assert lab.containers() == ["POD", "web"]
            await lab.until(lambda: {"Pulled", "Created", "Started"} <= lab.reasons())
            await lab.delete("web")
            assert lab.containers() == []
            assert not list((lab.directory / "node" / "pods").iterdir())

    lab.run(scenario)


def test_environment_files_and_names(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.api.create(
            ConfigMap(metadata=ObjectMeta(name="settings", namespace="default"), data={"a": "1", "b": "two"})
        )
        await lab.api.create(Secret(metadata=ObjectMeta(name="keys", namespace="default"), data={"k": "c2VjcmV0"}))
        script = (
            "echo A=$A B=$B K=$K IP=$IP NAME=$NAME; cat /conf/a /keys/k /down/labels; hostname; "
            "cat /etc/hosts /etc/resolv.conf; echo bye > /dev/termination-log; mount | grep -c 'tmpfs on /mem'"
        )
        env = [
            {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}},
            {"name": "B", "value": "$(A)-$(MISSING)-$$(A)"},
            {"name": "K", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]
        mounts = [
            {"name": "conf", "mountPath": "/conf"},
            {"name": "keys", "mountPath": "/keys"},
            {"name": "down", "mountPath": "/down"},
            {"name": "mem", "mountPath": "/mem"},
        ]
        volumes = [
            {"name": "conf", "configMap": {"name": "settings"}},
            {"name": "keys", "secret": {"secretName": "keys"}},
            {
                "name": "down",
                "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
            },
            {"name": "mem", "emptyDir": {"medium": "Memory"}},
        ]
        async with lab.agent() as agent:
            spec = {
                "restartPolicy": "Never",
                "containers": [shell(script, env=env, volumeMounts=mounts)],
                "volumes": volumes,
            }
            await lab.create("job", spec, labels={"app": "x"})
            pod = await lab.phase("job", "Succeeded")
            text = await output(lab, agent, "job")
            assert "A=1 B=1-$(MISSING)-$(A) K=secret" in text
            assert "NAME=job" in text
            assert "IP=10.244.7." in text
            assert '1secretapp="x"' in text
            assert "search default.svc.cluster.local svc.cluster.local cluster.local" in text
            assert "nameserver 10.96.0.10" in text
            assert f"{text.split('IP=')[1].split()[0]}\tjob" in text
            assert text.rstrip().endswith("1")
            ended = pod.status.container_statuses[0].state.terminated
            assert (ended.exit_code, ended.reason, ended.message) == (0, "Completed", "bye\n")

    lab.run(scenario)


def test_a_failing_container_backs_off(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        async with lab.agent():
            await lab.create("crash", {"containers": [shell("exit 3")]})

            def backs_off() -> bool:
                statuses = lab.pod("crash").status.container_statuses
                waiting = statuses and statuses[0].state.waiting
                return bool(waiting and waiting.reason == "CrashLoopBackOff")

            await lab.until(backs_off)
            status = lab.pod("crash").status.container_statuses[0]
            assert status.restart_count == 1  # the first restart comes without delay
            assert status.last_state.terminated.exit_code == 3
            assert "back-off 10s restarting failed container=main" in status.state.waiting.message
            await lab.delete("crash")

    lab.run(scenario)


def test_init_containers_run_in_order_and_a_sidecar_stays(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        shared = [{"name": "work", "mountPath": "/work"}]
        init = [
            shell("echo one >> /work/log", volumeMounts=shared) | {"name": "one"},
            shell(SLEEP) | {"name": "side", "restartPolicy": "Always"},
            shell("echo two >> /work/log", volumeMounts=shared) | {"name": "two"},
        ]
        async with lab.agent() as agent:
            await lab.create(
                "stages",
                {
                    "restartPolicy": "Never",
                    "initContainers": init,
                    "containers": [shell("cat /work/log", volumeMounts=shared)],
                    "volumes": [{"name": "work", "emptyDir": {}}],
                },
            )
            pod = await lab.phase("stages", "Succeeded")
            runtime = agent._runtime
            main = next(c for c in await runtime.containers(pod.metadata.uid) if c.name == "main")
            text = b"".join([part.data async for part in runtime.logs(main.id, LogOptions())])
            assert text == b"one\ntwo\n"
            # The sidecar ends with the pod.
            await lab.until(lambda: lab.pod("stages").status.init_container_statuses[1].state.terminated)

    lab.run(scenario)


def test_a_restarted_agent_adopts_running_pods(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        async with lab.agent():
            await lab.create("stays", {"containers": [shell(SLEEP)]})
            before = await lab.ready("stays")
            await lab.create("goes", {"containers": [shell(SLEEP)]})
            await lab.ready("goes")
        # While the agent is away one pod is removed for good.
        await lab.api.delete(Pod, "goes", namespace="default", grace_period_s=0)
        async with lab.agent() as agent:
            await eventually(lambda: len(lab.containers()) == 2)
            await lab.ready("stays")
            after = lab.pod("stays").status
            assert after.container_statuses == before.status.container_statuses
            assert after.pod_ip == before.status.pod_ip
            (container,) = await agent._runtime.containers(before.metadata.uid)
            await agent._runtime.stop_container(container.id, grace_s=0)
            await lab.until(lambda: lab.pod("stays").status.container_statuses[0].restart_count == 1)

    lab.run(scenario)


def test_a_dead_sandbox_is_made_anew(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        async with lab.agent() as agent:
            await lab.create("pod", {"containers": [shell(SLEEP)]})
            pod = await lab.ready("pod")
            (sandbox,) = await agent._runtime.sandboxes(pod.metadata.uid)
            await agent._runtime.stop_sandbox(sandbox.id)
            await lab.until(lambda: lab.pod("pod").status.container_statuses[0].restart_count == 1)
            after = await lab.ready("pod")
            assert after.status.pod_ip == pod.status.pod_ip
            assert lab.containers() == ["POD", "main", "main"]

    lab.run(scenario)


def test_an_image_that_is_not_there_is_said_so(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        def reason(name: str) -> str:
            statuses = lab.pod(name).status.container_statuses
            return statuses[0].state.waiting.reason if statuses and statuses[0].state.waiting else ""

        async with lab.agent():
            never = {"name": "main", "image": "trireme/none:1", "imagePullPolicy": "Never"}
            await lab.create("never", {"containers": [never]})
            await lab.until(lambda: reason("never") == "ErrImageNeverPull")
            missing = {"name": "main", "image": "127.0.0.1:9/none:1"}
            await lab.create("missing", {"containers": [missing]})
            await lab.until(lambda: reason("missing") == "ErrImagePull")
            await lab.until(lambda: reason("missing") == "ImagePullBackOff")
            await lab.delete("missing")

    lab.run(scenario)


def test_liveness_restarts_and_startup_holds_back(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        alive = {"exec": {"command": ["/bin/test", "-e", "/alive"]}, "periodSeconds": 1, "failureThreshold": 1}
        started = {"exec": {"command": ["/bin/test", "-e", "/alive"]}, "periodSeconds": 1, "failureThreshold": 30}
        script = f"(sleep 0.3; touch /alive; sleep 1.5; rm /alive) & {SLEEP}"
        async with lab.agent():
            await lab.create("probed", {"containers": [shell(script, livenessProbe=alive, startupProbe=started)]})
            await lab.until(lambda: (s := lab.pod("probed").status.container_statuses) and s[0].started)
            await lab.until(lambda: lab.pod("probed").status.container_statuses[0].restart_count == 1)
            await lab.until(lambda: "Unhealthy" in lab.reasons())

    lab.run(scenario)


def test_deletion_waits_for_the_grace_period_and_force_does_not(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        hook = {"preStop": {"exec": {"command": ["/bin/sh", "-c", "echo stopping > /work/log"]}}}
        stubborn = shell(
            "trap '' TERM; while :; do sleep 1; done",
            lifecycle=hook,
            volumeMounts=[{"name": "work", "mountPath": "/work"}],
        )
        async with lab.agent():
            volumes = [{"name": "work", "hostPath": {"path": str(lab.directory / "host"), "type": "DirectoryOrCreate"}}]
            spec = {"containers": [stubborn], "terminationGracePeriodSeconds": 30, "volumes": volumes}
            await lab.create("stubborn", spec)
            await lab.ready("stubborn")
            await lab.api.delete(Pod, "stubborn", namespace="default")
            await eventually((lab.directory / "host" / "log").exists)
            assert lab.pod("stubborn").metadata.deletion_timestamp
            # A second thought: at once.
            await lab.delete("stubborn", grace_s=0)
            await eventually(lambda: not lab.containers())
            assert (lab.directory / "host" / "log").read_text() == "stopping\n"

    lab.run(scenario)


def test_memory_limit_and_privileges_reach_the_process(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        async with lab.agent() as agent:
            greedy = shell(
                "x=$(head -c 200000000 /dev/zero | tr '\\0' 'a'); echo $x | wc -c",
                resources={"limits": {"memory": "32Mi"}},
            )
            await lab.create("greedy", {"restartPolicy": "Never", "containers": [greedy]})
            pod = await lab.phase("greedy", "Failed")
            assert pod.status.container_statuses[0].state.terminated.reason == "OOMKilled"
            context = {
                "runAsUser": 1000,
                "runAsGroup": 2000,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            script = "id -u; id -g; touch /x 2>&1; grep CapEff /proc/self/status"
            await lab.create(
                "modest", {"restartPolicy": "Never", "containers": [shell(script, securityContext=context)]}
            )
            await lab.phase("modest", "Succeeded")
            text = await output(lab, agent, "modest")
            assert text.splitlines()[:2] == ["1000", "2000"]
            assert "Read-only file system" in text
            assert "CapEff:\t0000000000000000" in text
            root = shell("true", securityContext={"runAsNonRoot": True})
            await lab.create("root", {"containers": [root]})
            await lab.until(
                lambda: (
                    (s := lab.pod("root").status.container_statuses)
                    and s[0].state.waiting
                    and s[0].state.waiting.reason == "CreateContainerConfigError"
                )
            )

    lab.run(scenario)


def test_files_follow_their_config_map(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node_agent.pods.launch._REFRESH_S", 0.2)
    monkeypatch.setattr("node_agent.pods.objects._FRESH_S", 0.0)

    async def scenario(lab: Lab) -> None:
        meta = ObjectMeta(name="settings", namespace="default")
        await lab.api.create(ConfigMap(metadata=meta, data={"a": "old"}))
        script = "until grep -q new /conf/a; do sleep 0.05; done; ls /conf; exit 0"
        spec = {
            "restartPolicy": "Never",
            "containers": [shell(script, volumeMounts=[{"name": "conf", "mountPath": "/conf"}])],
            "volumes": [{"name": "conf", "configMap": {"name": "settings"}}],
        }
        async with lab.agent() as agent:
            await lab.create("follower", spec)
            await lab.phase("follower", "Running")
            await lab.api.patch(ConfigMap, "settings", {"data": {"a": "new", "b": "more"}}, namespace="default")
            await lab.phase("follower", "Succeeded")
            assert (await output(lab, agent, "follower")).split() == ["a", "b"]

    lab.run(scenario)


def test_a_pod_from_a_file_has_a_mirror(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        manifests = lab.directory / "manifests"
        manifests.mkdir()
        text = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: fixed}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, image: '{IMAGE}', command: [sleep, '1000']}}\n"
        (manifests / "fixed.yaml").write_text(text)
        name = "fixed-node-under-test"
        async with lab.agent():
            await lab.until(lambda: lab.api.find(Pod, name, "default") and lab.is_ready(name))
            (manifests / "fixed.yaml").unlink()
            await lab.until(lambda: lab.api.find(Pod, name, "default") is None)
            await eventually(lambda: not lab.containers())

    lab.run(scenario)


def test_the_node_says_what_it_is(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        def ready() -> bool:
            node = lab.api.find(Node, lab.config.name)
            return node is not None and any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)

        async with lab.agent():
            await lab.until(ready)
            node = lab.api.find(Node, lab.config.name)
            assert node.status.node_info.container_runtime_version.startswith("docker://")
            assert node.status.capacity["pods"] == "110"
            assert {a.type for a in node.status.addresses} == {"InternalIP", "Hostname"}
            assert any(IMAGE in image.names for image in node.status.images)

    lab.run(scenario)


def test_a_pod_on_the_hosts_network(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        async with lab.agent() as agent:
            spec = {"hostNetwork": True, "restartPolicy": "Never", "containers": [shell("hostname; ls /sys/class/net")]}
            await lab.create("host", spec)
            pod = await lab.phase("host", "Succeeded")
            assert pod.status.host_ip == "127.0.0.1"
            assert (await output(lab, agent, "host")).splitlines()[0] == socket.gethostname()

    lab.run(scenario)


def test_a_shared_process_namespace(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        async with lab.agent() as agent:
            look = shell("until ps | grep -q '[7]7777'; do sleep 0.05; done; echo seen")
            other = {"name": "other", "image": IMAGE, "command": ["/bin/sleep", "77777"]}
            spec = {"shareProcessNamespace": True, "restartPolicy": "Never", "containers": [look, other]}
            await lab.create("shared", spec)
            await lab.until(lambda: (s := lab.pod("shared").status.container_statuses) and s[0].state.terminated)
            found = await agent._runtime.containers(lab.pod("shared").metadata.uid)
            main = next(each for each in found if each.name == "main")
            text = b"".join([part.data async for part in agent._runtime.logs(main.id, LogOptions())])
            assert text == b"seen\n"

    lab.run(scenario)


def test_what_the_node_cannot_do_is_refused_in_words(lab: Lab) -> None:
    async def scenario(lab: Lab) -> None:
        async with lab.agent():
            claim = [{"name": "data", "persistentVolumeClaim": {"claimName": "x"}}]
            await lab.create("claim", {"containers": [shell(SLEEP)], "volumes": claim})
            await lab.until(lambda: any("no driver for its source" in each for each in lab.events()))
            await lab.create("typo", {"containers": [{"name": "main", "image": IMAGE, "command": ["/no/such"]}]})
            await lab.until(lambda: any("no such file" in each for each in lab.events()))

    lab.run(scenario)


def test_a_pod_can_be_deleted_while_its_image_is_pulled(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("node_agent.runtime.docker_runtime.DockerRuntime.pull", never)

    async def scenario(lab: Lab) -> None:
        async with lab.agent():
            await lab.create("slow", {"containers": [{"name": "main", "image": "127.0.0.1:9/none:1"}]})
            await lab.until(lambda: "Pulling" in lab.reasons())
            await lab.delete("slow")
            assert lab.containers() == []

    lab.run(scenario)
