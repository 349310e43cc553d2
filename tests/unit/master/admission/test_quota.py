"""Quotas: what objects count for, whose scope they are in, and that a count never gives room away twice."""

import random
from fractions import Fraction
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import Forbidden
from api.kinds.table import TABLE
from master.admission.chain import Ledger
from master.admission.quota import ResourceQuotas
from master.controllers.resourcequota import plan_used
from master.quota import as_text, exceeded, is_about, unsaid, usage_of
from tests.unit.master.admission.objects import attributes, made, pod

NOW = 1_800_000_000.0


def resources(**amounts):
    requests = {name: amount for name, amount in amounts.items() if not name.startswith("limit_")}
    limits = {name.removeprefix("limit_"): amount for name, amount in amounts.items() if name.startswith("limit_")}
    return {"resources": {"requests": requests, "limits": limits}}


def usage(obj):
    return dict(as_text(usage_of(TABLE.of(type(obj)), obj, NOW)))


def claim(**spec):
    return made("v1", "PersistentVolumeClaim", spec={"resources": {"requests": {"storage": "5Gi"}}, **spec})


def service(**spec):
    return made("v1", "Service", spec={"ports": [{"port": 80}, {"port": 81}], **spec})


@pytest.mark.parametrize(
    ("obj", "counted"),
    [
        (pod(), {"pods": "1", "count/pods": "1"}),
        (
            pod(resources(cpu="100m", memory="1Gi", limit_cpu="1"), resources(cpu="200m", limit_memory="2Gi") | {"name": "d"}),
            {"pods": "1", "count/pods": "1", "cpu": "300m", "requests.cpu": "300m", "memory": "3Gi",
             "requests.memory": "3Gi", "limits.cpu": "1", "limits.memory": "2Gi"},
        ),
        (
            pod(resources(cpu="1"), initContainers=[{"name": "i", "image": "i", **resources(cpu="3")}]),
            {"pods": "1", "count/pods": "1", "cpu": "3", "requests.cpu": "3"},
        ),
        (
            pod(resources(cpu="1"), initContainers=[
                {"name": "side", "image": "i", "restartPolicy": "Always", **resources(cpu="2")},
                {"name": "i", "image": "i", **resources(cpu="500m")},
            ]),
            {"pods": "1", "count/pods": "1", "cpu": "3", "requests.cpu": "3"},
        ),
        (pod(resources(**{"example.com/gpu": "2"})), {"pods": "1", "count/pods": "1", "requests.example.com/gpu": "2"}),
        (service(), {"services": "1", "count/services": "1"}),
        (service(type="NodePort"), {"services": "1", "count/services": "1", "services.nodeports": "2"}),
        (service(type="LoadBalancer"),
         {"services": "1", "count/services": "1", "services.nodeports": "2", "services.loadbalancers": "1"}),
        (service(type="LoadBalancer", allocateLoadBalancerNodePorts=False),
         {"services": "1", "count/services": "1", "services.nodeports": "0", "services.loadbalancers": "1"}),
        (claim(storageClassName="fast"),
         {"persistentvolumeclaims": "1", "count/persistentvolumeclaims": "1", "requests.storage": "5Gi",
          "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
          "fast.storageclass.storage.k8s.io/requests.storage": "5Gi"}),
        (made("apps/v1", "Deployment"), {"count/deployments.apps": "1"}),
    ],
)  # fmt: skip
def test_what_counts(obj, counted):
    assert usage(obj) == counted


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_counts_for_nothing(phase):
    document = made("v1", "Pod", spec={"containers": [{"name": "c", "image": "i"}]}, status={"phase": phase})
    assert usage(document) == {}


def quota(hard=None, used=None, **spec):
    return made("v1", "ResourceQuota", metadata={"name": "q", "namespace": "shop"}, spec={"hard": hard or {}, **spec},
                status={"hard": hard or {}, "used": used or {}})  # fmt: skip


def scope(name, operator, *values):
    return {"matchExpressions": [{"scopeName": name, "operator": operator, "values": list(values)}]}


BURST = resources(cpu="1")


@pytest.mark.parametrize(
    ("spec", "obj", "about"),
    [
        ({}, pod(), True),
        ({}, service(), True),
        ({"scopes": ["BestEffort"]}, pod(), True),
        ({"scopes": ["BestEffort"]}, pod(BURST), False),
        ({"scopes": ["BestEffort"]}, service(), False),
        ({"scopes": ["NotBestEffort"]}, pod(BURST), True),
        ({"scopes": ["Terminating"]}, pod(activeDeadlineSeconds=5), True),
        ({"scopes": ["Terminating"]}, pod(), False),
        ({"scopes": ["NotTerminating", "BestEffort"]}, pod(), True),
        ({"scopes": ["NotTerminating", "BestEffort"]}, pod(BURST), False),
        ({"scopeSelector": scope("PriorityClass", "In", "high")}, pod(priorityClassName="high"), True),
        ({"scopeSelector": scope("PriorityClass", "In", "high")}, pod(priorityClassName="low"), False),
        ({"scopeSelector": scope("PriorityClass", "NotIn", "high")}, pod(), True),
        ({"scopeSelector": scope("PriorityClass", "Exists")}, pod(), False),
        ({"scopeSelector": scope("PriorityClass", "DoesNotExist")}, pod(), True),
        ({"scopes": ["CrossNamespacePodAffinity"]}, pod(), False),
        ({"scopes": ["CrossNamespacePodAffinity"]}, pod(affinity={"podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "x", "namespaces": ["other"]}]}}), True),
    ],
)  # fmt: skip
def test_scopes(spec, obj, about):
    assert is_about(quota(**spec), obj) is about


def test_refusals_name_only_what_is_exceeded():
    found = quota({"pods": "2", "requests.cpu": "1", "memory": "1Gi"}, {"pods": "1", "requests.cpu": "600m"})
    wanted = {"pods": Fraction(1), "requests.cpu": Fraction(1, 2), "memory": Fraction(2**31)}
    assert exceeded(found, wanted) == (
        "exceeded quota: q, requested: memory=2Gi,requests.cpu=500m, used: memory=0,requests.cpu=600m, "
        "limited: memory=1Gi,requests.cpu=1"
    )
    assert not exceeded(found, {"pods": Fraction(1), "requests.cpu": Fraction(4, 10)})
    assert not exceeded(found, {"services": Fraction(100)})


def test_what_must_be_said():
    found = quota({"cpu": "1", "limits.memory": "1Gi", "pods": "5"})
    both = pod(resources(cpu="1", limit_memory="1Mi"), {"name": "d"}, initContainers=[{"name": "i", "image": "i"}])
    assert unsaid(found, both) == "cpu for: d,i; limits.memory for: d,i"
    assert not unsaid(found, pod(resources(cpu="1", limit_memory="1Mi")))


class Kept:
    """A modifier of one quota that is kept in memory."""

    def __init__(self, found):
        self.found = found

    async def modify(self, kind, namespace, name, alter, *, dry_run=False):
        changed = await alter(SimpleNamespace(obj=self.found))
        self.found = self.found if dry_run else changed


async def test_a_write_that_is_worked_out_again_pays_once():
    """Goal: a conflict in the store does not cost the quota twice. Method: judge one request again and again."""
    kept = Kept(quota({"requests.storage": "9Gi"}))

    async def quotas(namespace):
        return [kept.found]

    rule = ResourceQuotas(TABLE.of(type(kept.found)), quotas, kept, rng=random.Random(1), now=lambda: NOW)
    ledger = Ledger()

    async def judge(storage, old):
        grown = claim(resources={"requests": {"storage": storage}})
        await rule.judge(attributes(grown, old=claim(resources={"requests": {"storage": old}}), ledger=ledger))
        return kept.found.status.used["requests.storage"]

    assert await judge("8Gi", "2Gi") == "6Gi"
    assert await judge("8Gi", "2Gi") == "6Gi"
    # Somebody else made it larger meanwhile, and paid for that: what is left to pay is less.
    assert await judge("8Gi", "5Gi") == "3Gi"
    assert await judge("8Gi", "8Gi") == "0"
    with pytest.raises(Forbidden, match="exceeded quota"):
        await judge("18Gi", "2Gi")
    assert kept.found.status.used["requests.storage"] == "0"


async def test_what_came_to_nothing_is_given_back_once():
    kept = Kept(quota({"requests.storage": "9Gi"}))

    async def quotas(namespace):
        return [kept.found]

    rule = ResourceQuotas(TABLE.of(type(kept.found)), quotas, kept, rng=random.Random(1), now=lambda: NOW)
    mine, others = Ledger(), Ledger()
    wanted = claim(resources={"requests": {"storage": "3Gi"}})
    for ledger in (mine, others):
        await rule.judge(attributes(wanted, ledger=ledger))
    assert kept.found.status.used["requests.storage"] == "6Gi"
    for _ in range(2):
        await rule.give_back("default", mine)
        assert kept.found.status.used["requests.storage"] == "3Gi"


STEPS = st.lists(st.sampled_from(["charge", "store", "lose", "refuse", "delete", "count", "settle"]), max_size=40)


@given(STEPS)
def test_a_count_never_gives_room_away_twice(steps):
    """Goal: used covers all that is there or on its way. Method: charges, stores, losses and counts in any order.

    The controller counts only what is stored; nobody tells it what is on its way, or what was charged and lost.
    """
    used = stored = under_way = released = 0
    for step in steps:
        if step == "charge":
            used, under_way = used + 1, under_way + 1
        elif step == "store" and under_way:
            stored, under_way = stored + 1, under_way - 1
        elif step == "lose" and under_way:
            under_way -= 1
        elif step == "refuse" and under_way:
            used, under_way = used - 1, under_way - 1
        elif step == "delete" and stored:
            stored, released = stored - 1, released + 1
        elif step == "count" or (step == "settle" and not under_way):
            amounts = ({"pods": Fraction(each)} for each in (used, stored, released))
            used = int(plan_used(*amounts, settled=step == "settle")["pods"])
            released = 0
        assert used >= stored + under_way, steps
    amounts = ({"pods": Fraction(each)} for each in (used, stored, released))
    assert plan_used(*amounts, settled=True) == {"pods": stored}
