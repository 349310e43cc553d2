"""etcd3gw's ordinary use, through the JSON gateway, told line by line. Run: etcd3gw_tour.py HOST PORT"""

import sys

from etcd3gw.client import Etcd3Client


def tell(*what: object) -> None:
    print(*what, flush=True)


def main() -> None:
    client = Etcd3Client(host=sys.argv[1], port=int(sys.argv[2]), api_path="/v3/", timeout=10)
    tell("missing", client.get("/g/missing"))
    tell("put", client.put("/g/a", "1"))
    tell("get", client.get("/g/a"), [facts["version"] for _, facts in client.get("/g/a", metadata=True)])
    client.put("/g/b", "2")
    tell("prefix", [value for value, _ in client.get_prefix("/g/")])
    tell("create", client.create("/g/c", "3"), client.create("/g/c", "4"))
    tell("replace", client.replace("/g/c", "3", "5"), client.replace("/g/c", "3", "6"))
    lease = client.lease(ttl=60)
    client.put("/g/leased", "1", lease=lease)
    tell("lease", lease.refresh(), lease.keys(), 0 < lease.ttl() <= 60)
    tell("revoked", lease.revoke(), client.get("/g/leased"))
    with client.lock("g", ttl=10) as lock:
        tell("locked", lock.is_acquired())
    tell("unlocked", lock.is_acquired())
    events, cancel = client.watch("/g/w")
    client.put("/g/w", "1")
    event = next(events)
    tell("watch", event["kv"]["key"], event["kv"]["value"])
    cancel()
    tell("status", client.status()["version"][:2])
    tell("members", [member["name"] for member in client.members()])
    tell("gone", client.delete_prefix("/g/"))


main()
