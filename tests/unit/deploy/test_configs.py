"""Files that hosts and clients read: decoded again, as their readers do."""

import base64
import tomllib
from pathlib import Path

import msgspec
import pytest
import yaml

from deploy import configs
from deploy.lab import Lab, StoreTls


def files(lab: Lab, host: str) -> dict[str, str]:
    return configs.render_host_files(lab, lab.host(host))


def test_a_store_member_knows_all_members_and_itself(lab: Lab) -> None:
    store = tomllib.loads(files(lab, "master2")["store.toml"])
    assert store["name"] == "master2"
    assert store["cluster"] == "lab"
    assert store["client_url"] == "https://10.89.7.12:2379"
    assert store["members"] == {f"master{i}": f"https://10.89.7.1{i}:2380" for i in (1, 2, 3)}
    assert store["peer_tls"]["cert"] == "/etc/trireme/pki/peer.crt"
    assert store["peer_tls"]["names"] == ["master1", "master2", "master3"], "nor makes its bearer a member"
    assert store["client_tls"]["groups"] == ["system:masters"], "a node's certificate opens no store"


def test_a_master_asks_its_own_member_first(lab: Lab) -> None:
    master = tomllib.loads(files(lab, "master2")["master.toml"])
    assert master["store_endpoints"] == ["10.89.7.12:2379", "10.89.7.11:2379", "10.89.7.13:2379"]
    assert master["api_address"] == "10.89.7.10:6443"
    assert master["masters"]["master3"] == "10.89.7.13:6444"
    assert master["tls"] == {
        "client_ca": "/etc/trireme/pki/ca.crt",
        "cert": "/etc/trireme/pki/server.crt",
        "key": "/etc/trireme/pki/server.key",
    }


@pytest.mark.parametrize("tls", [None, StoreTls("/ca", "/cert", "/key")], ids=["plain", "tls"])
def test_an_external_store_takes_the_members_place(lab: Lab, tls: StoreTls | None) -> None:
    external = msgspec.structs.replace(lab, store_endpoints=("192.0.2.1:2379",), store_tls=tls)
    rendered = files(external, "master1")
    assert "store.toml" not in rendered
    master = tomllib.loads(rendered["master.toml"])
    assert master["store_endpoints"] == ["192.0.2.1:2379"]
    assert ("store_tls" in master) == (tls is not None)


def test_a_node_knows_every_master(lab: Lab) -> None:
    node = tomllib.loads(files(lab, "node1")["node.toml"])
    assert node["masters"] == ["10.89.7.11:6444", "10.89.7.12:6444", "10.89.7.13:6444"]
    assert node["address"] == "10.89.7.21"
    assert node["runtime"] == "docker"


def test_the_balancer_reaches_every_master_and_checks_it(lab: Lab) -> None:
    text = files(lab, "entry")["haproxy.cfg"]
    servers = [line.split()[1:3] for line in text.splitlines() if line.startswith("  server ")]
    assert servers == [[f"master{i}", f"10.89.7.1{i}:6443"] for i in (1, 2, 3)]


def test_beside_a_balancer_the_master_leaves_the_virtual_address_free(lab: Lab) -> None:
    shared = msgspec.structs.replace(lab, virtual_address="10.89.7.10")
    rendered = files(shared, "master1")
    assert tomllib.loads(rendered["master.toml"])["rest_listen"] == "10.89.7.11:6443"
    assert "bind 10.89.7.10:6443" in rendered["haproxy.cfg"]


@pytest.mark.parametrize("value", ['quote " backslash \\ newline \n', "", "ünïcode", 7, ["a", "b"], []], ids=repr)
def test_values_survive_the_way_through_toml(value: object) -> None:
    text = configs.render_toml({"key": value}, {"table": {"other": value, "dotted.key": "x"}})
    assert tomllib.loads(text) == {"key": value, "table": {"other": value, "dotted.key": "x"}}


def test_the_kubeconfig_embeds_everything(lab: Lab) -> None:
    config = yaml.safe_load(configs.render_kubeconfig(lab, ca=b"CA", cert=b"CERT", key=b"KEY"))
    context = {item["name"]: item["context"] for item in config["contexts"]}[config["current-context"]]
    cluster = {item["name"]: item["cluster"] for item in config["clusters"]}[context["cluster"]]
    user = {item["name"]: item["user"] for item in config["users"]}[context["user"]]
    assert cluster["server"] == "https://10.89.7.10:6443"
    assert base64.b64decode(cluster["certificate-authority-data"]) == b"CA"
    assert base64.b64decode(user["client-certificate-data"]) == b"CERT"
    assert base64.b64decode(user["client-key-data"]) == b"KEY"


def test_the_environment_names_every_member(lab: Lab) -> None:
    paths = {"kubeconfig": Path("/k"), "ca": Path("/ca"), "cert": Path("/c"), "key": Path("/key")}
    values = configs.render_environment(lab, **paths)
    assert values == {
        "KUBECONFIG": "/k",
        "ETCDCTL_API": "3",
        "ETCDCTL_ENDPOINTS": "https://10.89.7.11:2379,https://10.89.7.12:2379,https://10.89.7.13:2379",
        "ETCDCTL_CACERT": "/ca",
        "ETCDCTL_CERT": "/c",
        "ETCDCTL_KEY": "/key",
    }
    plain = configs.render_environment(msgspec.structs.replace(lab, store_endpoints=("etcd:2379",)), **paths)
    assert plain["ETCDCTL_ENDPOINTS"] == "http://etcd:2379"
    assert "ETCDCTL_CERT" not in plain
