"""Every file that a host or the administrator reads, rendered from the lab: text in, text out, nothing touched.

TOML is written by hand because the standard library only reads it: our values are strings, whole numbers and lists
of strings, whose JSON form is their TOML form.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy import lab as lab_facts
from deploy.lab import API_PORT, GRPC_PORT, PEER_PORT, STORE_METRICS_PORT, STORE_PORT, Host, Lab
from deploy.pki import ADMIN_GROUP

ETC = "/etc/trireme"
DATA = "/var/lib/trireme"
ANYWHERE = "0.0.0.0"  # noqa: S104 - of the lab's own network, which nothing outside reaches
BACKUPS = f"{DATA}/backups"
BACKUP_EVERY_S = 1800.0
SNAPSHOT = "initial.snapshot"  # what a lab made from a backup begins with, in each master's folder
STORE_PKI = "store-pki"  # an external store's files, beside pki/ in the host's folder

Value = str | int | float | Sequence[str]


def render_toml(values: Mapping[str, Value], tables: Mapping[str, Mapping[str, Value]]) -> str:
    """Return a TOML document: plain values first, then one table after another."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    for name, table in tables.items():
        lines += ["", f"[{name}]"]
        lines += [f"{json.dumps(key) if '.' in key else key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _tls(stem: str, *, authority: str = "ca") -> dict[str, Value]:
    return {authority: f"{ETC}/pki/ca.crt", "cert": f"{ETC}/pki/{stem}.crt", "key": f"{ETC}/pki/{stem}.key"}


def render_store(lab: Lab, host: Host) -> str:
    """Return the store member's store.toml."""
    begins: dict[str, Value] = {"initial_snapshot": f"{ETC}/{SNAPSHOT}"} if lab.from_snapshot else {}
    return render_toml(
        {
            "name": host.name,
            "cluster": lab.name,
            "data_dir": f"{DATA}/store",
            **begins,
            "client_listen": f"{ANYWHERE}:{STORE_PORT}",
            "peer_listen": f"{ANYWHERE}:{PEER_PORT}",
            "client_url": f"https://{host.address}:{STORE_PORT}",
            "engine": lab.engine,
            "metrics_listen": f"{ANYWHERE}:{STORE_METRICS_PORT}",
        },
        {
            "members": {master.name: f"https://{master.address}:{PEER_PORT}" for master in lab.masters},
            # Nodes and users bear certificates of the same authority; the store is for masters and administrators.
            "client_tls": {**_tls("server"), "groups": [ADMIN_GROUP]},
            # Members bear the names of their hosts, and the masters sign no other certificate with such a name.
            "peer_tls": {**_tls("peer"), "names": [master.name for master in lab.masters]},
            **({} if lab.engine == "raftos" else {"backup": {"dir": BACKUPS, "every_s": BACKUP_EVERY_S, "keep": 24}}),
        },
    )


def store_endpoints(lab: Lab, host: Host) -> list[str]:
    """Return where ``host``'s master finds the store: its own member first, so that reads stay local."""
    if lab.store_endpoints:
        return list(lab.store_endpoints)
    others = [master.address for master in lab.masters if master != host]
    return [f"{address}:{STORE_PORT}" for address in (host.address, *others)]


def _store_tls(lab: Lab) -> dict[str, dict[str, Value]]:
    if not lab.store_endpoints:
        return {"store_tls": _tls("client")}
    if lab.store_tls is None:
        return {}
    return {"store_tls": {key: f"{ETC}/{STORE_PKI}/{name}" for key, name in STORE_FILES.items()}}


STORE_FILES = {"ca": "ca.crt", "cert": "client.crt", "key": "client.key"}


def render_master(lab: Lab, host: Host) -> str:
    """Return the master's master.toml."""
    return render_toml(
        {
            "name": host.name,
            "address": host.address,
            # A balancer beside the master takes the same port on the virtual address.
            "rest_listen": f"{host.address if lab.virtual_address else ANYWHERE}:{API_PORT}",
            "grpc_listen": f"{ANYWHERE}:{GRPC_PORT}",
            "api_address": f"{lab.api_address}:{API_PORT}",
            "store_endpoints": store_endpoints(lab, host),
            "pod_cidr": lab_facts.POD_CIDR,
            "service_cidr": lab_facts.SERVICE_CIDR,
            "cluster_dns": lab_facts.CLUSTER_DNS,
            "cluster_domain": lab_facts.CLUSTER_DOMAIN,
        },
        {
            "masters": {master.name: f"{master.address}:{GRPC_PORT}" for master in lab.masters},
            "tls": _tls("server", authority="client_ca"),
            "node_tls": _tls("client"),
            "access": {
                "signing_keys": [f"{ETC}/pki/sa.key"],
                "issuer": f"https://kubernetes.default.svc.{lab_facts.CLUSTER_DOMAIN}",
                "authority_cert": f"{ETC}/pki/ca.crt",
                "authority_key": f"{ETC}/pki/ca.key",
                "encryption_keys": [f"{ETC}/pki/secrets.key"],
                "audit_log": f"{DATA}/audit/audit.log",
            },
            **_store_tls(lab),
        },
    )


def render_node(lab: Lab, host: Host) -> str:
    """Return the node agent's node.toml."""
    return render_toml(
        {
            "name": host.name,
            "address": host.address,
            "masters": [f"{master.address}:{GRPC_PORT}" for master in lab.masters],
            "listen": f"{ANYWHERE}:{lab_facts.AGENT_PORT}",
            "data_dir": f"{DATA}/node",
            "runtime": "docker",
            "cluster_dns": lab_facts.CLUSTER_DNS,
            "cluster_domain": lab_facts.CLUSTER_DOMAIN,
            "service_cidr": lab_facts.SERVICE_CIDR,
            "pod_cidr": lab_facts.POD_CIDR,
        },
        {"tls": _tls("node")},
    )


def render_haproxy(lab: Lab, *, bind: str) -> str:
    """Return the balancer's configuration: TLS passed through, masters asked for their health four times a second.

    A session whose master is marked down is closed at once, so that clients reconnect instead of waiting for TCP's
    own timeouts; a connection that a dead master does not take within 300 ms goes to the next one. A check's TLS
    handshake has to fit into the same 300 ms: on a busy machine one or two may not, hence three failures in a row,
    which also leave a master that has lost the store's quorum the time to tell its clients to try again.
    """
    servers = "\n".join(f"  server {master.name} {master.address}:{API_PORT}" for master in lab.masters)
    return f"""\
global
  maxconn 4000
  log stdout format raw local0 notice

defaults
  mode tcp
  log global
  timeout connect 300ms
  timeout check 800ms
  timeout client 1h
  timeout server 1h
  retries 6
  option redispatch 1

frontend api
  bind {bind}:{API_PORT}
  default_backend masters

backend masters
  balance roundrobin
  option httpchk
  http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host entry
  http-check expect status 200
  default-server inter 250ms fastinter 200ms downinter 250ms fall 3 rise 1 on-marked-down shutdown-sessions
  default-server check check-ssl verify required ca-file {ETC}/pki/ca.crt crt {ETC}/pki/health.pem
{servers}
"""


# Which interface bears the host's address only the host knows: vm.sh puts it there.
INTERFACE = "@INTERFACE@"


def render_keepalived(lab: Lab, host: Host) -> str:
    """Return the configuration that keeps the virtual address on one master whose balancer answers.

    Unicast: virtual networks often drop multicast.
    """
    others = "\n".join(f"    {master.address}" for master in lab.masters if master != host)
    peers = f"  unicast_peer {{\n{others}\n  }}\n" if others else ""
    priority = 100 - lab.masters.index(host)
    return f"""\
global_defs {{
  router_id {host.name}
  script_user root
  enable_script_security
}}
vrrp_script haproxy {{
  script "/usr/bin/pgrep -x haproxy"
  interval 1
  fall 2
  rise 1
}}
vrrp_instance api {{
  state BACKUP
  nopreempt
  interface {INTERFACE}
  virtual_router_id 51
  priority {priority}
  advert_int 0.3
  version 3
  unicast_src_ip {host.address}
{peers}  virtual_ipaddress {{
    {lab.virtual_address}/24
  }}
  track_script {{
    haproxy
  }}
}}
"""


def render_host_files(lab: Lab, host: Host) -> dict[str, str]:
    """Return what lies in the host's /etc/trireme beside pki/: file name -> text."""
    match host.role:
        case "entry":
            return {"haproxy.cfg": render_haproxy(lab, bind="")}
        case "node":
            return {"node.toml": render_node(lab, host)}
        case "master":
            files = {"master.toml": render_master(lab, host)}
            if not lab.store_endpoints:
                files["store.toml"] = render_store(lab, host)
            if lab.virtual_address:
                # Only on the virtual address: the master itself listens on the host's own.
                files["haproxy.cfg"] = render_haproxy(lab, bind=lab.virtual_address)
                files["keepalived.conf"] = render_keepalived(lab, host)
            return files


def render_kubeconfig(lab: Lab, *, ca: bytes, cert: bytes, key: bytes) -> str:
    """Return a kubeconfig with everything embedded, so that it can be copied to another machine."""
    embedded = {name: base64.b64encode(data).decode() for name, data in (("ca", ca), ("cert", cert), ("key", key))}
    name = f"trireme-{lab.name}"
    return f"""\
apiVersion: v1
kind: Config
current-context: {name}
clusters:
- name: {name}
  cluster:
    server: {lab.api_url}
    certificate-authority-data: {embedded["ca"]}
users:
- name: {name}-admin
  user:
    client-certificate-data: {embedded["cert"]}
    client-key-data: {embedded["key"]}
contexts:
- name: {name}
  context:
    cluster: {name}
    user: {name}-admin
"""


def render_environment(lab: Lab, *, kubeconfig: Path, ca: Path, cert: Path, key: Path) -> dict[str, str]:
    """Return what kubectl and etcdctl need, variable -> value."""
    values = {"KUBECONFIG": str(kubeconfig), "ETCDCTL_API": "3"}
    files: tuple[Path, ...] = (ca, cert, key)
    if not lab.store_endpoints:
        endpoints = [f"https://{master.address}:{STORE_PORT}" for master in lab.masters]
    else:
        scheme = "https" if lab.store_tls else "http"
        endpoints = [f"{scheme}://{endpoint}" for endpoint in lab.store_endpoints]
        tls = lab.store_tls
        files = (Path(tls.ca), Path(tls.cert), Path(tls.key)) if tls else ()
    values["ETCDCTL_ENDPOINTS"] = ",".join(endpoints)
    values |= dict(zip(("ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY"), map(str, files), strict=False))
    return values
