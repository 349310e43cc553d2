"""python-etcd3's ordinary use, told line by line. Run: etcd3_tour.py HOST PORT"""

import sys
import threading

import etcd3
import etcd3.exceptions


def tell(*what: object) -> None:
    print(*what, flush=True)


def main() -> None:
    client = etcd3.client(host=sys.argv[1], port=int(sys.argv[2]), timeout=10)
    keys(client)
    watches(client)
    leases(client)
    the_store(client)
    tell("gone", client.delete_prefix("/t/").deleted)


def keys(client: etcd3.Etcd3Client) -> None:
    tell("missing", client.get("/t/missing"))
    client.put("/t/a", "1")
    value, facts = client.get("/t/a")
    tell("get", value, facts.key, facts.version)
    tell("prev", client.put("/t/a", "2", prev_kv=True).prev_kv.value)
    for name in ("b", "c", "d"):
        client.put(f"/t/{name}", name)
    tell("prefix", [(facts.key, value) for value, facts in client.get_prefix("/t/", sort_order="descend")])
    tell("range", [value for value, _ in client.get_range("/t/b", "/t/d")])
    tell("count", len(list(client.get_prefix("/t/", keys_only=True))))
    tell("delete", client.delete("/t/d"), client.delete("/t/d"))
    tell("put if absent", client.put_if_not_exists("/t/e", "1"), client.put_if_not_exists("/t/e", "2"))
    tell("replace", client.replace("/t/e", "1", "3"), client.replace("/t/e", "1", "4"))
    tell(
        "txn",
        client.transaction(
            compare=[client.transactions.value("/t/e") == "3", client.transactions.version("/t/e") > 0],
            success=[client.transactions.put("/t/f", "txn"), client.transactions.get("/t/a")],
            failure=[client.transactions.delete("/t/e")],
        )[0],
    )


def watches(client: etcd3.Etcd3Client) -> None:
    heard, enough = [], threading.Event()

    def hear(response: object) -> None:
        heard.extend((type(event).__name__, event.key, event.value) for event in response.events)
        if len(heard) == 3:
            enough.set()

    watch = client.add_watch_callback("/t/w", hear, range_end="/t/x")
    client.put("/t/w1", "1")
    client.put("/t/w2", "2")
    client.delete("/t/w1")
    tell("watch", enough.wait(10), heard)
    client.cancel_watch(watch)
    _, facts = client.get("/t/a")
    client.put("/t/a", "new")
    revision = client.get("/t/a")[1].mod_revision
    client.compact(revision, physical=True)
    events, _ = client.watch("/t/a", start_revision=facts.mod_revision)
    try:
        next(iter(events))
        tell("history is still there")
    except etcd3.exceptions.RevisionCompactedError as exc:
        tell("compacted", exc.compacted_revision == revision)


def leases(client: etcd3.Etcd3Client) -> None:
    lease = client.lease(60)
    client.put("/t/leased", "1", lease=lease)
    tell("lease", lease.granted_ttl, list(lease.keys), [reply.TTL for reply in lease.refresh()])
    lease.revoke()
    tell("revoked", client.get("/t/leased")[0])
    with client.lock("t", ttl=10) as lock:
        tell("locked", lock.is_acquired())
    tell("unlocked", lock.is_acquired())


def the_store(client: etcd3.Etcd3Client) -> None:
    tell("members", [(member.name, bool(member.id)) for member in client.members])
    status = client.status()
    tell("status", status.leader.name, status.db_size > 0)
    tell("alarms", list(client.list_alarms()))
    client.defragment()
    tell("hash", isinstance(client.hash(), int))


main()
