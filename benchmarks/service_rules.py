"""How long it takes until the kernel's service rules follow the API: one new endpoint, or everything.

Programs real rules in a network namespace of its own, for each iptables back end; needs root.

    python benchmarks/service_rules.py [SERVICES ...]
"""

import asyncio
import os
import subprocess
import sys
import time
from statistics import median

import msgspec
from pyroute2.netns import setns

from node_agent.proxy.iptables import Iptables
from node_agent.proxy.proxy import ProxyTiming, ServiceProxy
from node_agent.proxy.rules import Endpoint, ProxyConfig, ServicePort

ENDPOINTS = 3
ROUNDS = 15


def services(count: int) -> list[ServicePort]:
    return [
        ServicePort(
            "default",
            f"service-{n}",
            80,
            cluster_ip=f"10.96.{n // 250}.{n % 250 + 1}",
            endpoints=tuple(Endpoint(f"10.{244 + k}.{n // 250}.{n % 250 + 1}", 8080) for k in range(ENDPOINTS)),
        )
        for n in range(count)
    ]


async def measure(backend: str, count: int) -> tuple[float, float]:
    """Return the seconds for everything at once and the median for one changed endpoint."""
    proxy = ServiceProxy(ProxyConfig("node1", "10.244.0.0/14"), Iptables(backend), timing=ProxyTiming(canary_s=1000))
    running = asyncio.create_task(proxy.run())
    try:
        wanted = services(count)
        started = time.monotonic()
        await proxy.wait_synced(proxy.update(wanted))
        full_s = time.monotonic() - started
        took_s = []
        for n in range(ROUNDS):
            await asyncio.sleep(0.2)  # a quiet time before, as after most changes
            wanted[-1] = msgspec.structs.replace(wanted[-1], endpoints=(Endpoint(f"10.244.200.{n + 1}", 80),))
            started = time.monotonic()
            await proxy.wait_synced(proxy.update(list(wanted)))
            took_s.append(time.monotonic() - started)
        return full_s, median(took_s)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await proxy.clean_up()


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or [10, 100, 1000]
    name = f"trireme-bench-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        setns(os.open(f"/run/netns/{name}", os.O_RDONLY))
        print(f"{ENDPOINTS} endpoints a service; one change: median of {ROUNDS}, update() to rules in the kernel")
        for backend in ("nft", "legacy"):
            for count in counts:
                full_s, change_s = asyncio.run(measure(backend, count))
                figures = f"all {full_s * 1000:7.0f} ms   one change {change_s * 1000:5.0f} ms"
                print(f"{backend:7}{count:6} services   {figures}")
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


if __name__ == "__main__":
    main()
