"""Records after the Kubernetes DNS specification 1.1; the ids name its sections."""

import pytest

from node_agent.dns.answers import (
    NOERROR,
    NXDOMAIN,
    DnsEndpoint,
    DnsPort,
    DnsService,
    Record,
    Snapshot,
    Zone,
)

ZONE = Zone("cluster.local", "10.96.0.10", ("10.96.0.0/16", "10.244.0.0/16"))
HTTP = DnsPort("http", "TCP", 80)
WEB = DnsService("default", "web", ("10.96.0.20", "fd00::20"), ports=(HTTP, DnsPort("", "TCP", 81)))
DB = DnsService(
    "prod",
    "db",
    endpoints=(
        DnsEndpoint("10.244.1.3", "db-0", ports=(HTTP,)),
        DnsEndpoint("10.244.2.4", ports=(HTTP,)),
        DnsEndpoint("10.244.2.5", "db-2", ready=False, ports=(HTTP,)),
    ),
)
EXT = DnsService("default", "ext", external_name="example.com.")
SNAPSHOT = Snapshot(ZONE, [WEB, DB, EXT], namespaces=["default", "prod", "empty"])


def data(name: str, wanted: str, snapshot: Snapshot = SNAPSHOT) -> object:
    """What is answered: the records' data, or "no data", NXDOMAIN, "not ours"."""
    answer = snapshot.answer(name, wanted)
    if answer is None:
        return "not ours"
    assert answer.negative == (not answer.records), "a negative answer carries the SOA, no other does"
    if answer.rcode == NXDOMAIN:
        return "NXDOMAIN"
    return sorted(r.data for r in answer.records) or "no data"


@pytest.mark.parametrize(
    ("name", "wanted", "expected"),
    [
        pytest.param("dns-version.cluster.local.", "TXT", ["1.1.0"], id="2.2"),
        pytest.param("web.default.svc.cluster.local.", "A", ["10.96.0.20"], id="2.3.1 A"),
        pytest.param("web.default.svc.cluster.local.", "AAAA", ["fd00::20"], id="2.3.1 AAAA"),
        pytest.param("WEB.Default.SVC.cluster.LOCAL", "A", ["10.96.0.20"], id="case does not matter"),
        pytest.param(
            "_http._tcp.web.default.svc.cluster.local.",
            "SRV",
            [(0, 100, 80, "web.default.svc.cluster.local")],
            id="2.3.2",
        ),
        pytest.param("20.0.96.10.in-addr.arpa.", "PTR", ["web.default.svc.cluster.local"], id="2.3.3"),
        pytest.param(
            "0.2.0.0." + "0.0.0.0." * 6 + "0.0.d.f.ip6.arpa.", "PTR", ["web.default.svc.cluster.local"], id="2.3.3 v6"
        ),
        pytest.param("db.prod.svc.cluster.local.", "A", ["10.244.1.3", "10.244.2.4"], id="2.4.1 ready ones"),
        pytest.param("db-0.db.prod.svc.cluster.local.", "A", ["10.244.1.3"], id="2.4.1 hostname"),
        pytest.param("10-244-2-4.db.prod.svc.cluster.local.", "A", ["10.244.2.4"], id="2.4.1 without one"),
        pytest.param(
            "_http._tcp.db.prod.svc.cluster.local.",
            "SRV",
            [
                (0, 50, 80, "10-244-2-4.db.prod.svc.cluster.local"),
                (0, 50, 80, "db-0.db.prod.svc.cluster.local"),
            ],
            id="2.4.2",
        ),
        pytest.param("3.1.244.10.in-addr.arpa.", "PTR", ["db-0.db.prod.svc.cluster.local"], id="2.4.3"),
        pytest.param("ext.default.svc.cluster.local.", "A", ["example.com"], id="2.5"),
        pytest.param("ext.default.svc.cluster.local.", "CNAME", ["example.com"], id="2.5 asked for"),
        pytest.param("10-244-9-9.empty.pod.cluster.local.", "A", ["10.244.9.9"], id="pod"),
        pytest.param("ns.dns.cluster.local.", "A", ["10.96.0.10"], id="the server itself"),
        pytest.param("cluster.local.", "NS", ["ns.dns.cluster.local"], id="zone NS"),
    ],
)
def test_names_that_have_records(name: str, wanted: str, expected: list[object]) -> None:
    assert data(name, wanted) == expected


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("db.prod.svc.cluster.local", "AAAA"),
        ("web.default.svc.cluster.local", "TXT"),
        ("_tcp.web.default.svc.cluster.local", "SRV"),
        ("_http._tcp.web.default.svc.cluster.local", "A"),
        ("default.svc.cluster.local", "A"),
        ("empty.pod.cluster.local", "A"),
        ("svc.cluster.local", "A"),
        ("cluster.local", "A"),
        ("20.0.96.10.in-addr.arpa", "A"),
    ],
)
def test_names_that_exist_without_such_a_record(name: str, wanted: str) -> None:
    """NXDOMAIN here would make resolvers believe that the name has no address of any kind."""
    assert data(name, wanted) == "no data"


@pytest.mark.parametrize(
    "name",
    [
        "no.default.svc.cluster.local",
        "web.prod.svc.cluster.local",
        "nowhere.svc.cluster.local",
        "a.web.default.svc.cluster.local",
        "a.b.web.default.svc.cluster.local",
        "_no._tcp.web.default.svc.cluster.local",
        "_http._udp.web.default.svc.cluster.local",
        "db-2.db.prod.svc.cluster.local",
        "a.ext.default.svc.cluster.local",
        "10-244-9-9.nowhere.pod.cluster.local",
        "not-an-address.default.pod.cluster.local",
        "example.com.cluster.local",
        "9.9.244.10.in-addr.arpa",
    ],
)
def test_names_that_do_not_exist(name: str) -> None:
    assert data(name, "A") == "NXDOMAIN"


@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "local",
        "notcluster.local",
        "cluster.local.example.com",
        "8.8.8.8.in-addr.arpa",
        "10.in-addr.arpa",
        "",
    ],
)
def test_names_that_others_know(name: str) -> None:
    assert data(name, "PTR") == "not ours"


def test_unready_endpoints_are_published_if_the_service_wants_it() -> None:
    eager = DnsService("prod", "db", endpoints=DB.endpoints, publish_not_ready=True)
    assert data("db-2.db.prod.svc.cluster.local", "A", Snapshot(ZONE, [eager])) == ["10.244.2.5"]


def test_pod_names_in_any_namespace_when_none_are_known() -> None:
    assert data("1-2-3-4.any.pod.cluster.local", "A", Snapshot(ZONE)) == ["1.2.3.4"]


def test_an_endpoint_in_two_subsets_is_named_once() -> None:
    twice = DnsService("prod", "db", endpoints=(DB.endpoints[0], DnsEndpoint("10.244.1.3", "db-0")))
    snapshot = Snapshot(ZONE, [twice])
    assert data("db.prod.svc.cluster.local", "A", snapshot) == ["10.244.1.3"]


def test_srv_brings_the_addresses_of_its_targets() -> None:
    answer = SNAPSHOT.answer("_http._tcp.db.prod.svc.cluster.local.", "SRV")
    assert answer is not None
    assert {(r.name, r.data) for r in answer.additional} == {
        ("db-0.db.prod.svc.cluster.local", "10.244.1.3"),
        ("10-244-2-4.db.prod.svc.cluster.local", "10.244.2.4"),
    }


def test_any_gives_all_types() -> None:
    answer = SNAPSHOT.answer("web.default.svc.cluster.local", "ANY")
    assert answer is not None
    assert answer.rcode == NOERROR
    assert {r.type for r in answer.records} == {"A", "AAAA", "SRV"}


def test_the_owner_is_written_as_it_was_asked_for() -> None:
    """Resolvers vary the case of a question to tell a forged answer by it."""
    answer = SNAPSHOT.answer("wEb.default.svc.cluster.local.", "A")
    assert answer is not None
    assert answer.records == (Record("wEb.default.svc.cluster.local.", "A", "10.96.0.20"),)
