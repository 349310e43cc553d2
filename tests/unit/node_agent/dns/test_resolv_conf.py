import pytest

from node_agent.dns.resolv_conf import ResolvConf, parse_resolv_conf, render_pod_resolv_conf

HOST = ResolvConf(("127.0.0.11", "192.0.2.53"), ("lab.example",), ("timeout:1",))


def pod(policy: str, config: ResolvConf | None = None, host: ResolvConf = HOST, **options: bool) -> ResolvConf:
    text = render_pod_resolv_conf(
        policy=policy,
        namespace="prod",
        cluster_dns="10.96.0.10",
        cluster_domain="cluster.local",
        host=host,
        config=config,
        **options,
    )
    return parse_resolv_conf(text)


CLUSTER = ResolvConf(
    ("10.96.0.10",),
    ("prod.svc.cluster.local", "svc.cluster.local", "cluster.local", "lab.example"),
    ("ndots:5",),
)


@pytest.mark.parametrize(
    ("policy", "host_network", "expected"),
    [
        ("ClusterFirst", False, CLUSTER),
        ("ClusterFirst", True, HOST),
        ("ClusterFirstWithHostNet", True, CLUSTER),
        ("ClusterFirstWithHostNet", False, CLUSTER),
        ("Default", True, HOST),
        # The host's loopback is out of a pod's reach; the cluster DNS forwards to it.
        ("Default", False, ResolvConf(("10.96.0.10", "192.0.2.53"), HOST.searches, HOST.options)),
    ],
)
def test_what_each_policy_gives(policy: str, host_network: object, expected: ResolvConf) -> None:
    assert pod(policy, host_network=bool(host_network)) == expected


def test_the_pod_s_own_config_is_merged_and_wins() -> None:
    own = ResolvConf(("192.0.2.1", "10.96.0.10"), ("svc.cluster.local", "own.example"), ("ndots:2", "edns0"))
    assert pod("ClusterFirst", own) == ResolvConf(
        ("10.96.0.10", "192.0.2.1"), (*CLUSTER.searches, "own.example"), ("ndots:2", "edns0")
    )
    assert pod("None", own) == own


def test_what_resolvers_do_not_take_is_cut() -> None:
    many = ResolvConf(tuple(f"192.0.2.{n}" for n in range(9)), tuple(f"d{n}.example" for n in range(60)))
    assert len(pod("None", many).nameservers) == 3
    assert len(pod("None", many).searches) == 32
    long = ResolvConf(("192.0.2.1",), tuple(f"{n}{'x' * 240}.example" for n in range(20)))
    assert len(" ".join(pod("None", long).searches)) <= 2048


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="needs at least one nameserver"):
        pod("None")
    with pytest.raises(ValueError, match="unknown dnsPolicy 'Clusterfirst'"):
        pod("Clusterfirst")


def test_a_host_s_file_is_read_as_the_c_library_does() -> None:
    text = """# made by hand
nameserver 192.0.2.1   # first
nameserver fe80::1%eth0
nameserver
domain old.example
search a.example b.example ; trailing
options ndots:1 rotate
options timeout:2
sortlist 192.0.2.0
"""
    assert parse_resolv_conf(text) == ResolvConf(
        ("192.0.2.1", "fe80::1%eth0"), ("a.example", "b.example"), ("ndots:1", "rotate", "timeout:2")
    )
    assert parse_resolv_conf("") == ResolvConf()
