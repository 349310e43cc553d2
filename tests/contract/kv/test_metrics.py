"""Metrics by etcd's names: what both have, and what is known to be missing."""

import re
from pathlib import Path

import aiohttp
import pytest

from tests.contract.kv.pair import pair_of_stores
from tests.contract.kv.stores import ours, real_etcd

pytestmark = pytest.mark.etcd

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "etcd.md"
# What speaks of Go, of etcd's old API, of its proxy, or of a database file that ours does not have.
NOT_OURS = re.compile(
    r"go_|promhttp_|etcd_grpc_proxy_|etcd_debugging_store_|etcd_debugging_disk_backend_|etcd_disk_backend_|"
    r"etcd_mvcc_db_open_read_transactions|etcd_server_go_version|etcd_debugging_mvcc_db_|etcd_debugging_mvcc_index_"
)
_FAMILY = re.compile(r"^# TYPE (\w+) (\w+)$", re.MULTILINE)


async def families(address: str) -> dict[str, str]:
    """Return name -> kind."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as response:
        return dict(_FAMILY.findall(await response.text()))


async def test_names(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    with real_etcd(tmp_path / "etcd") as theirs, ours(tmp_path, members=1, engine="native") as mine:
        expected, found = await families(theirs.http[0]), await families(mine.http[0])
    missing = {name for name in expected if name not in found and not NOT_OURS.match(name)}
    documented = set(re.findall(r"`((?:etcd|grpc|process)_\w+)`", DOCUMENT.read_text(encoding="utf-8")))
    assert missing <= documented, f"neither there nor documented: {sorted(missing - documented)}"
    assert documented <= missing, f"documented as missing, and there: {sorted(documented - missing)}"
    unknown = {name for name in found if name not in expected and not name.startswith("trireme_")}
    assert not unknown, "names of ours that etcd does not have begin with trireme_"
    assert {name: kind for name, kind in found.items() if name in expected} == {
        name: expected[name] for name in found if name in expected
    }


async def test_what_is_counted(tmp_path: Path) -> None:
    from trireme_pb.etcdserverpb import rpc_pb2 as pb

    with pair_of_stores(tmp_path) as pair:
        pair.call("KV", "Put", pb.PutRequest(key=b"a"))
        put = pb.RequestOp(request_put=pb.PutRequest(key=b"b"))
        pair.call("KV", "Txn", pb.TxnRequest(success=[put]))
        pair.call("KV", "DeleteRange", pb.DeleteRangeRequest(key=b"a"))
        pair.call("Lease", "LeaseGrant", pb.LeaseGrantRequest(ID=7, TTL=60))
        pair.call("Lease", "LeaseRevoke", pb.LeaseRevokeRequest(ID=7))
        texts = []
        for endpoint in pair.endpoints:
            async with aiohttp.ClientSession() as session, session.get(f"http://{endpoint}/metrics") as response:
                texts.append(await response.text())
    for name in (
        "etcd_mvcc_put_total",
        "etcd_mvcc_delete_total",
        "etcd_debugging_lease_granted_total",
        "etcd_debugging_lease_revoked_total",
        "etcd_server_has_leader",
        "etcd_server_is_leader",
        "etcd_server_is_learner",
        "etcd_server_proposals_pending",
        "etcd_server_proposals_failed_total",
        "etcd_debugging_mvcc_keys_total",
        "etcd_debugging_auth_revision",
    ):
        theirs, mine = (float(re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)[0]) for text in texts)
        assert theirs == mine, name
    assert 'etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"}' in texts[1]
