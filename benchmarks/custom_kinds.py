"""What custom kinds cost beside built-in ones, and how soon a new one is served: ratios within one run.

Brings up a memory store and three masters as processes, without nodes. Run: ``python benchmarks/custom_kinds.py``.
"""

import asyncio
import copy
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.clients.cluster import Cluster, running  # noqa: E402 - needs the path above

CLIENTS = 16
OBJECTS = 500
KINDS = 20
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "/apis/stable.example.com/v1"
DEFINITION: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "crontab.yaml").read_text())


class Client:
    """The administrator, on whichever master."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession) -> None:
        self.urls = cluster.urls
        self._session = session

    async def post(self, path: str, document: dict[str, Any]) -> None:
        async with self._session.post(self.urls[0] + path, json=document) as answer:
            assert answer.status == 201, await answer.text()

    async def get(self, path: str, master: int = 0) -> bytes:
        async with self._session.get(self.urls[master] + path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()


async def creations_a_second(client: Client, path: str, documents: list[dict[str, Any]]) -> float:
    """Return how many objects a second CLIENTS clients create."""
    at_once = asyncio.Semaphore(CLIENTS)

    async def create(document: dict[str, Any]) -> None:
        async with at_once:
            await client.post(path, document)

    started = time.perf_counter()
    await asyncio.gather(*map(create, documents))
    return len(documents) / (time.perf_counter() - started)


async def milliseconds(client: Client, path: str) -> float:
    started = time.perf_counter()
    await client.get(path)
    return (time.perf_counter() - started) * 1000


async def publication_ms(client: Client, number: int) -> tuple[float, float]:
    """Return how long a new kind takes to be established, and to be served and described by every master."""
    document = copy.deepcopy(DEFINITION)
    plural = f"kind{number}s"
    names = {"plural": plural, "singular": f"kind{number}", "kind": f"Kind{number}", "shortNames": [], "categories": []}
    document["spec"]["names"] |= names
    document["metadata"]["name"] = f"{plural}.stable.example.com"
    started = time.perf_counter()
    await client.post(CRDS, document)
    while b'"type":"Established"' not in await client.get(f"{CRDS}/{plural}.stable.example.com"):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    established = time.perf_counter()
    for master in range(len(client.urls)):
        await client.get(f"{GROUP}/{plural}", master)
        assert f"Kind{number}List".encode() in await client.get(f"/openapi/v3{GROUP}", master)
    return (established - started) * 1000, (time.perf_counter() - started) * 1000


async def measure(cluster: Cluster) -> None:
    tls = ssl.create_default_context(cafile=cluster.files / "ca.crt")
    tls.load_cert_chain(cluster.files / "admin.crt", cluster.files / "admin.key")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, limit=CLIENTS)) as session:
        client = Client(cluster, session)
        published = [await publication_ms(client, number) for number in range(KINDS)]
        for name, times in zip(("established", "served by all"), zip(*published, strict=True), strict=True):
            print(f"new kind {name}: median {statistics.median(times):.0f} ms, longest {max(times):.0f} ms")
        configmaps, custom = "/api/v1/namespaces/default/configmaps", f"{GROUP}/namespaces/default/kind0s"
        for turn in range(3):
            rates = []
            for path, content in ((configmaps, {"data": {"a": "b"}}), (custom, {"spec": {"cronSpec": "* * * * *"}})):
                documents = [{"metadata": {"name": f"o{turn}-{n}"}, **content} for n in range(OBJECTS)]
                rates.append(await creations_a_second(client, path, documents))
            print(f"create: ConfigMap {rates[0]:.0f}/s, custom {rates[1]:.0f}/s, ratio {rates[1] / rates[0]:.2f}")
        print(f"list of {3 * OBJECTS}: ConfigMap {await milliseconds(client, configmaps):.1f} ms", end=", ")
        print(f"custom {await milliseconds(client, custom):.1f} ms")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), nodes=0, masters=3) as running_cluster:
        asyncio.run(measure(running_cluster))
