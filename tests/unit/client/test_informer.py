import asyncio
from api.kinds.core import ConfigMap
from api.meta import ObjectMeta
from client.informer import SharedInformers
from tests.fakes.resources import MemoryResources


async def test_first():
    m = MemoryResources()
    await m.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="x")))
    inf = SharedInformers(m)
    i = inf.of(ConfigMap)
    seen = []
    i.subscribe(seen.append)
    t = asyncio.create_task(inf.run())
    await inf.wait_synced()
    await m.create(ConfigMap(metadata=ObjectMeta(name="b", namespace="x")))
    await i.wait_until(lambda: len(i) == 2)
    assert seen == ["x/a", "x/b"]
    t.cancel()
    await asyncio.gather(t, return_exceptions=True)
