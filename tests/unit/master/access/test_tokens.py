"""Service-account and bootstrap tokens: for whom, for how long, and what they die with."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from api.kinds.core import Node, Secret, ServiceAccount
from api.kinds.pods import Pod
from api.meta import ObjectMeta
from master.access.bootstrap_tokens import BootstrapTokens
from master.access.signing import Key, KeyRing
from master.access.tokens import EXTENDED_S, LEEWAY_S, POD_TOKEN_S, ServiceAccountTokens
from master.lookup import Lookup
from tests.unit.master.rest.fake_registry import FakeRegistry

API = "https://api"
RING = KeyRing([Key(key.public_key(), key) for key in [ec.generate_private_key(ec.SECP256R1())]])
START = 1_700_000_000.0


def meta(name, namespace="shop", uid=""):
    return ObjectMeta(name=name, namespace=namespace, uid=uid or f"{name}-1")


ACCOUNT = ServiceAccount(metadata=meta("robot"))
POD = Pod(metadata=meta("p"))
SECRET = Secret(metadata=meta("s"))
NODE = Node(metadata=meta("n", ""))


class World:
    """Tokens over a registry in memory and a clock moved by hand."""

    def __init__(self, *objects):
        self.registry = FakeRegistry().furnish(objects)
        self.now = START
        lookup = Lookup(self.registry.table, self.registry)
        self.tokens = ServiceAccountTokens(RING, lookup, issuer=API, audiences=(API,), now=lambda: self.now)
        self.bootstrap = BootstrapTokens(lookup, now=lambda: self.now)

    def replace(self, *objects):
        self.registry.furnish(objects)

    def remove(self, obj):
        kind = self.registry.table.of(type(obj))
        del self.registry.rows[kind.place, obj.metadata.namespace, obj.metadata.name]


async def test_who_bears_it():
    world = World(ACCOUNT, POD, NODE)
    issued = world.tokens.issue(ACCOUNT, bound=POD, node=NODE)
    user = await world.tokens.verify(issued.token)
    assert (user.name, user.uid) == ("system:serviceaccount:shop:robot", "robot-1")
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:shop")
    assert user.extra["authentication.kubernetes.io/pod-name"] == ("p",)
    assert user.extra["authentication.kubernetes.io/pod-uid"] == ("p-1",)
    assert user.extra["authentication.kubernetes.io/node-name"] == ("n",)
    assert user.extra["authentication.kubernetes.io/credential-id"][0].startswith("JTI=")


async def test_expiry():
    world = World(ACCOUNT)
    issued = world.tokens.issue(ACCOUNT, lifetime_s=600)
    assert issued.expires == START + 600
    world.now = START + 600 + LEEWAY_S
    assert await world.tokens.verify(issued.token)
    world.now += 1
    assert await world.tokens.verify(issued.token) is None
    world.now = START - LEEWAY_S - 1
    assert await world.tokens.verify(issued.token) is None


async def test_the_token_of_a_pods_volume_is_extended():
    """Old clients read the file once; the agent renews it by what it is told."""
    world = World(ACCOUNT, POD)
    issued = world.tokens.issue(ACCOUNT, lifetime_s=POD_TOKEN_S, bound=POD)
    assert issued.expires == START + POD_TOKEN_S
    world.now = START + EXTENDED_S
    assert await world.tokens.verify(issued.token)
    other = world.tokens.issue(ACCOUNT, audiences=("vault",), lifetime_s=POD_TOKEN_S, bound=POD)
    assert RING.verify(other.token)["exp"] == world.now + POD_TOKEN_S


@pytest.mark.parametrize("bound", [POD, SECRET, NODE], ids=lambda each: type(each).__name__)
async def test_it_dies_with_what_it_is_bound_to(bound):
    world = World(ACCOUNT, bound)
    token = world.tokens.issue(ACCOUNT, bound=bound).token
    assert await world.tokens.verify(token)
    world.replace(replace(bound, metadata=replace(bound.metadata, uid="another")))
    assert await world.tokens.verify(token) is None
    world.remove(bound)
    assert await world.tokens.verify(token) is None


async def test_a_pod_that_stops_may_still_speak_for_a_moment():
    world = World(ACCOUNT, POD)
    token = world.tokens.issue(ACCOUNT, bound=POD).token
    world.replace(replace(POD, metadata=replace(POD.metadata, deletion_timestamp="2023-11-14T22:13:20Z")))  # START
    world.now = START + LEEWAY_S
    assert await world.tokens.verify(token)
    world.now += 1
    assert await world.tokens.verify(token) is None


async def test_it_dies_with_its_account():
    world = World(ACCOUNT)
    token = world.tokens.issue(ACCOUNT).token
    world.replace(replace(ACCOUNT, metadata=replace(ACCOUNT.metadata, uid="robot-2")))
    assert await world.tokens.verify(token) is None


async def test_audiences():
    world = World(ACCOUNT)
    token = world.tokens.issue(ACCOUNT, audiences=("vault", "db")).token
    assert await world.tokens.verify(token) is None
    reviewed = await world.tokens.review(token, ("db", "mail"))
    assert reviewed.audiences == ("db",)
    assert await world.tokens.review(token, ("mail",)) is None


async def test_another_issuer_is_not_ours():
    world = World(ACCOUNT)
    other = ServiceAccountTokens(
        RING, Lookup(world.registry.table, world.registry), issuer="https://other", audiences=(API,)
    )
    assert await world.tokens.verify(other.issue(ACCOUNT).token) is None


async def test_legacy_tokens_live_in_their_secret():
    world = World(ACCOUNT)
    token = world.tokens.issue_legacy(ACCOUNT, "s")
    assert await world.tokens.verify(token) is None
    held = replace(SECRET, data={"token": base64.b64encode(token.encode()).decode()})
    world.replace(held)
    user = await world.tokens.verify(token)
    assert (user.name, dict(user.extra)) == ("system:serviceaccount:shop:robot", {})
    world.replace(replace(SECRET, data={"token": "b3RoZXI="}))
    assert await world.tokens.verify(token) is None


def bootstrap(**fields):
    values = {
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true",
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    return Secret(
        metadata=ObjectMeta(name="bootstrap-token-abcdef", namespace="kube-system"),
        type="bootstrap.kubernetes.io/token",
        data={name: base64.b64encode(value.encode()).decode() for name, value in values.items()},
    )


@pytest.mark.parametrize(
    ("secret", "groups"),
    [
        (bootstrap(), ("system:bootstrappers",)),
        (bootstrap(auth_extra_groups="system:bootstrappers:a, system:bootstrappers:b"),
         ("system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:b")),
        (bootstrap(auth_extra_groups="system:masters"), None),
        (bootstrap(usage_bootstrap_authentication="false"), None),
        (bootstrap(expiration="2023-11-14T22:13:21Z"), ("system:bootstrappers",)),
        (bootstrap(expiration="2023-11-14T22:13:20Z"), None),
        (bootstrap(expiration="soon"), None),
        (bootstrap(token_id="abcdeg"), None),
        (bootstrap(token_secret="0123456789abcdee"), None),
        (replace(bootstrap(), type="Opaque"), None),
        (replace(bootstrap(), metadata=ObjectMeta(name="bootstrap-token-abcdef", namespace="default")), None),
    ],
)  # fmt: skip
async def test_bootstrap_tokens(secret, groups):
    user = await World(secret).bootstrap.verify("abcdef.0123456789abcdef")
    assert (user and user.groups) == groups
    if user:
        assert user.name == "system:bootstrap:abcdef"


@pytest.mark.parametrize(
    "token", ["", "abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdef\n", "abcde.f0123456789abcdef"]
)
async def test_what_is_no_bootstrap_token(token):
    assert await World(bootstrap()).bootstrap.verify(token) is None
