"""What a client is warned of, in the words of the real server."""

import pytest

from api.cautions import cautions
from tests.unit.api.validation.objects import CONTAINER, LABELLED, POD, SELECTOR, an_object, changed

C = "spec.containers.0"
DEPLOYMENT = {"spec": {"selector": SELECTOR, "template": LABELLED | POD}}
HEADLESS = {"spec": {"clusterIP": "None", "ports": [{"port": 80}]}}
PORT = {"containerPort": 80}


@pytest.mark.parametrize(
    ("kind", "document", "path", "value", "told"),
    [
        ("Pod", POD, "", None, []),
        ("ConfigMap", {}, "metadata.finalizers", ["a"], []),
        (
            "Pod", POD, "metadata.name", "a.b",
            [("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label "
             "is recommended: [must not contain dots]")],
        ),
        ("Pod", changed(POD, "spec.hostname", "a"), "metadata.name", "a.b", []),
        (
            "Pod", POD, "spec.nodeSelector", {"beta.kubernetes.io/os": "linux"},
            ['spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead'],
        ),
        (
            "Deployment", DEPLOYMENT, "spec.template.spec.volumes", [{"name": "v", "gitRepo": {"repository": "r"}}],
            ["spec.template.spec.volumes[0].gitRepo: deprecated in v1.11"],
        ),
        (
            "Pod", POD, "spec.hostAliases", [{"ip": "1.2.3.4", "hostnames": ["a"]}, {"ip": "1.2.3.4", "hostnames": ["b"]}],
            ['spec.hostAliases[1].ip: duplicate ip "1.2.3.4"'],
        ),
        (
            "Pod", POD, "spec.imagePullSecrets", [{"name": "a"}, {}, {"name": "a"}],
            ['spec.imagePullSecrets[1].name: invalid empty name ""',
             'spec.imagePullSecrets[2].name: duplicate name "a"'],
        ),
        (
            "Pod", POD, "spec.topologySpreadConstraints",
            [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
            ["spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod"],
        ),
        (
            "Pod", POD, "spec.terminationGracePeriodSeconds", -1,
            ["spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"],
        ),
        (
            "Pod", POD, f"{C}.resources", {"limits": {"memory": "100m"}},
            ['spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer',
             'spec.containers[0].resources.requests[memory]: fractional byte value "100m" is invalid, must be an integer'],
        ),
        (
            "Pod", POD, f"{C}.env", [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}],
            ['spec.containers[0].env[1]: hides previous definition of "a", which may be dropped when using apply'],
        ),
        ("Pod", POD, f"{C}.env", [{"name": "a", "value": "1"}, {"name": "a", "value": "$(a)2"}], []),
        (
            "Pod", POD, f"{C}.ports", [PORT, PORT],
            ["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"],
        ),
        (
            "Ingress", {"spec": {"defaultBackend": {"service": {"name": "a", "port": {"number": 1}}}}},
            "metadata.annotations", {"kubernetes.io/ingress.class": "a"},
            ["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"],
        ),
        (
            "Service", HEADLESS, "spec.externalIPs", ["1.2.3.4"],
            ["spec.externalIPs is ignored for headless services"],
        ),
        (
            "Service", HEADLESS, "spec.sessionAffinity", "ClientIP",
            ["spec.SessionAffinity is ignored for headless services"],
        ),
        (
            "Service", {"spec": {"type": "ExternalName", "externalName": "a.b"}}, "spec.externalIPs", ["1.2.3.4"],
            ['spec.externalIPs is ignored when spec.type is "ExternalName"'],
        ),
        (
            "CronJob",
            {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": POD}}}},
            "spec.jobTemplate.spec.template.spec.containers", [CONTAINER | {"ports": [PORT, PORT]}],
            [("spec.jobTemplate.spec.template.spec.containers[0].ports[1]: duplicate port definition with "
             "spec.jobTemplate.spec.template.spec.containers[0].ports[0]")],
        ),
    ],
)  # fmt: skip
def test_what_is_told_of_a_new_object(kind, document, path, value, told):
    assert cautions(*an_object(kind, changed(document, path, value))) == told


@pytest.mark.parametrize(
    ("kind", "document", "path", "value", "count"),
    [
        ("Pod", changed(POD, "spec.terminationGracePeriodSeconds", -1), "metadata.labels", {"a": "b"}, 0),
        ("Service", HEADLESS | {"metadata": {}}, "spec.externalIPs", ["1.2.3.4"], 1),
        ("Ingress", {"spec": {}}, "metadata.annotations", {"kubernetes.io/ingress.class": "a"}, 0),
    ],
)
def test_how_much_is_told_of_a_change(kind, document, path, value, count):
    _, old = an_object(kind, document)
    assert len(cautions(*an_object(kind, changed(document, path, value)), old)) == count
