"""Objects that go, or have gone, or are others by now."""

import pytest

from api.errors import Conflict
from api.kinds.core import ConfigMap, Namespace
from api.meta import ObjectMeta
from master.controllers.removal import remove
from tests.fakes.resources import MemoryResources


async def test_what_has_gone_is_as_good_as_removed_and_another_one_stays() -> None:
    api = MemoryResources()
    await api.create(Namespace(metadata=ObjectMeta(name="x")))
    old = await api.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="x")))
    assert await remove(api, old)
    assert not await remove(api, old)
    await api.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="x")))
    with pytest.raises(Conflict):
        await remove(api, old)
    assert api.find(ConfigMap, "a", "x") is not None
