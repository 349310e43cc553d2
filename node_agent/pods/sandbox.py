"""One pod's sandbox: made and plugged into the network, taken over from an agent that ran before, unplugged,
stopped and removed.

The launcher hears of each step, for containers are prepared meanwhile: they can be made when the sandbox has an id, and
started when it has an address.
"""

import asyncio

from api.errors import ApiError
from api.kinds.pods import Pod
from node_agent.errors import NodeError
from node_agent.network.model import host_ports_of
from node_agent.pods.containers import render_sandbox
from node_agent.pods.launch import Launcher
from node_agent.pods.operations import PREPARE, phase
from node_agent.pods.surroundings import Surroundings
from node_agent.runtime.base import RuntimeFailed, Sandbox


class PodSandbox:
    """Where the containers of one pod live; one sandbox at a time."""

    def __init__(self, around: Surroundings, launcher: Launcher) -> None:
        self._around = around
        self._launcher = launcher
        self._known = False
        self._address = ""

    @property
    def address(self) -> str:
        """The pod's address, "" while it has none."""
        return self._address

    @property
    def is_known(self) -> bool:
        """Whether the sandbox that there is was made or taken over by this agent."""
        return self._known

    def expect(self) -> None:
        """``create`` is about to be called: containers may be prepared."""
        self._known = True
        self._launcher.expect_sandbox()

    def adopt(self, sandbox: Sandbox) -> None:
        """Take over a sandbox that runs from before this agent's start; ``plug_in`` must follow."""
        self._known = True
        self._launcher.adopt(sandbox)

    async def create(self, pod: Pod, attempt: int) -> None:
        """Make a sandbox, start it and plug it in; raises NodeError."""
        try:
            with phase(PREPARE):
                handler = await self._launcher.handler(pod)
            domain = self._around.names.cluster_domain
            config = render_sandbox(pod, attempt, cluster_domain=domain, handler=handler)
            sandbox_id = await self._around.runtime.create_sandbox(config)
            self._launcher.sandbox_created(sandbox_id)
            sandbox = await self._around.runtime.start_sandbox(sandbox_id)
            await self.plug_in(pod, sandbox)
        except NodeError as exc:
            self._launcher.sandbox_failed(exc)
            raise
        except ApiError as exc:
            failure = RuntimeFailed(exc.message)
            self._launcher.sandbox_failed(failure)
            raise failure from exc

    async def plug_in(self, pod: Pod, sandbox: Sandbox) -> None:
        """Give a running sandbox its address; the same one if it has been plugged in before."""
        if pod.spec.host_network:
            self._address = self._around.names.host_ip
        else:
            with phase(PREPARE):
                ports = host_ports_of(pod.spec)
                plugged = await self._around.network.attach(sandbox.pid, pod.metadata.uid, ports)
            self._address = plugged.address
        await self._launcher.sandbox_ready(pod, sandbox, self._address)

    async def stop(self, pod: Pod, sandbox_id: str) -> None:
        """Unplug and stop the sandbox."""
        await self._unplug(pod)
        await self._around.runtime.stop_sandbox(sandbox_id)

    async def remove(self, pod: Pod) -> None:
        """Unplug the pod, and remove what the engine still has of it: containers and sandboxes."""
        runtime, uid = self._around.runtime, pod.metadata.uid
        await self._unplug(pod)
        containers, sandboxes = await asyncio.gather(runtime.containers(uid), runtime.sandboxes(uid))
        await asyncio.gather(
            *(runtime.remove_container(each.id) for each in containers),
            *(runtime.remove_sandbox(each.id) for each in sandboxes),
        )

    async def _unplug(self, pod: Pod) -> None:
        if not pod.spec.host_network:
            await self._around.network.detach(pod.metadata.uid)
