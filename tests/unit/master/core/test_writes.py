"""What the writer asks for before it writes."""

import pytest

from api.errors import Forbidden, not_found
from api.kinds.table import TABLE
from master.access.authorization import Authorizer
from master.access.user import AUTHENTICATED, User
from master.admission.chain import Chain
from master.modify import stored_as
from master.rest.seam import WriteOptions
from master.writes import Writer
from tests.unit.master.access.test_authorization import Policies, binding, role, rule

ALICE = WriteOptions(user=User("alice", ("devs", AUTHENTICATED)), field_manager="test")
LEASES = TABLE.preferred("coordination.k8s.io", "leases")
MAPS = TABLE.preferred("", "configmaps")


class Empty:
    """A modifier of a store that has nothing, and takes what is added."""

    def __init__(self):
        self.added = []

    def owner(self, kind):
        return kind

    def claimant(self, owner):
        return None

    def key(self, owner, namespace, name):
        return f"{owner.plural}/{namespace}/{name}"

    async def modify(self, kind, namespace, name, alter, **more):
        raise not_found(kind.plural, name, group=kind.group)

    async def add(self, owner, key, obj, fence):
        self.added.append(key)
        return stored_as(owner, obj, 1)


def writer(store, verbs):
    groups = ("", "coordination.k8s.io")
    roles = [role("r", rule(verbs, ["configmaps", "leases"], groups=groups))]
    bindings = [binding("ClusterRole", "r", {"kind": "User", "name": "alice"})]
    return Writer(store, Chain(), authorizer=Authorizer(Policies(roles, bindings)))


async def apply(found):
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "m", "namespace": "a"},
        "data": {"x": "y"},
    }
    return await found.apply(MAPS, document, namespace="a", name="m", options=ALICE)


async def update(found):
    meta = {"name": "m", "namespace": "a"}
    document = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": {}}
    return await found.update(LEASES, document, namespace="a", name="m", options=ALICE)


@pytest.mark.parametrize("write", [apply, update])
async def test_who_may_not_create_creates_by_no_other_verb(write):
    store = Empty()
    with pytest.raises(Forbidden, match="cannot create resource"):
        await write(writer(store, "get patch update"))
    assert store.added == []
    assert (await write(writer(store, "create patch update"))).created
    assert len(store.added) == 1
