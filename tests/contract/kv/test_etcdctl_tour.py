"""etcdctl's whole tour, against ours and against a real etcd, word by word.

Both stores are fresh and are given the same commands in the same order. What names one store (ids, addresses) and what no
two runs share (times, sizes) is made equal; everything else, standard error and exit status included, has to be the same.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.kv.stores import Store, ours, real_etcd
from tests.contract.kv.test_etcdctl import environment

pytestmark = pytest.mark.etcd

# One command a line; what follows " <<< " is typed into it, "|" standing for the end of a line.
KEYS = r"""
put a 1
put a 2 --prev-kv
put b 3 -w json
put b --ignore-value
put c --ignore-value
put a 5 --lease=123
put -- --dashed value
get a
get a -w json
get a -w fields
get a -w simple --print-value-only
get a --hex
get --prefix a -w table
get a c
get --from-key a --limit 2
get --prefix "" --keys-only
get --prefix "" --count-only -w fields
get --prefix "" --sort-by=MODIFY --order=DESCEND
get --prefix "" --sort-by=VALUE
get --prefix "" --sort-by=VERSION --limit=1
get a --rev=2
get a --rev=99
get a --consistency=s
get missing
get
get a --order=sideways
txn <<< mod("a") = "3"||put a 4|get a||get a|
txn <<< ver("a") > "7"||put a 4||get b|del b|
txn -w json <<< value("b") = "3"||del b --prev-kv||put x 1|
txn <<< create("nothing") = "0"||put new 1|
txn <<< nonsense("a") = "0"||
del nothing
del a --prev-kv
del a b -w json
del --prefix n --prev-kv
put z 1
put z 2
compaction 5
compaction 5
compaction 999
compaction x
get z --rev=3
watch z --rev=3
put
put a b c
del
frobnicate
""".strip().splitlines()

LEASES = r"""
lease grant 600
lease grant 600 -w json
lease grant x
lease grant 9000000001
lease revoke 12345
lease timetolive 12345
lease timetolive 12345 -w json
lease keep-alive --once 12345
lease list -w json
lease revoke
lease frobnicate
lock held true
lock held false
lock held echo held
""".strip().splitlines()

CLUSTER = r"""
member list
member list -w table
member list -w json
member remove 1
member remove x
member promote 1
member update 1 --peer-urls=http://127.0.0.1:1
member update 1
member add
member add m9
member add m9 --peer-urls=nonsense
endpoint health
endpoint health -w json
endpoint status
endpoint status -w json
endpoint status -w fields
alarm list
alarm disarm
defrag
move-leader 1
move-leader
snapshot save
member frobnicate
check datascale --load=s --prefix=/check/
get --prefix /check/ --count-only -w fields
version
""".strip().splitlines()

USERS = r"""
auth enable
user list
user add ann:secret
user add ann:secret
user add bob --no-password
user add cid --new-user-password=secret
user add "" --new-user-password=x
user add dan --interactive=false <<< typed
user list
user list -w json
user get ann
user get nobody
role add some
role add some
role add ""
role list
role grant-permission some readwrite /a --prefix
role grant-permission some read k
role grant-permission some write b d
role grant-permission some read x --from-key
role grant-permission some peek y
role grant-permission none read y
role get some
role get some -w json
role get none
role revoke-permission some k
role revoke-permission some nothing
role revoke-permission some b d
role get some
user grant-role ann some
user grant-role ann none
user grant-role nobody some
user get ann
user get ann --detail
user revoke-role cid some
user passwd cid --interactive=false <<< other
user passwd nobody --interactive=false <<< other
user delete cid
user delete cid
auth enable
user add root:root
auth enable
user grant-role root root
put outside 1
auth enable
get outside
put outside 2
user list
auth enable
--user root:root user list
--user root:root get outside
--user root:wrong get outside
--user nobody:x get outside
--user bob:x get outside
--user ann:secret get outside
--user ann:secret put /a/x 1
--user ann:secret get /a --prefix
--user ann:secret get / --prefix
--user ann:secret put --prev-kv /a/x 2
--user ann:secret del /a --prefix
--user ann:secret txn <<< ver("/a/x") = "0"||put /a/y 1||get outside|
--user ann:secret watch outside
--user ann:secret lease grant 600
--user ann:secret user list
--user ann:secret user get ann
--user ann:secret user get bob
--user ann:secret role get some
--user ann:secret role list
--user ann:secret role get root
--user ann:secret auth disable
--user ann:secret member list
--user ann:secret endpoint health
--user ann:secret compaction 2
--user ann:secret lock /a/lock true
--user ann:secret lock elsewhere true
endpoint health
--user root:root user delete root
--user root:root role delete root
--user root:root user revoke-role root root
--user root:root role delete some
--user root:root user get ann
--user ann:secret get /a --prefix
--user root:root user passwd ann --interactive=false <<< changed
--user ann:secret get /a/x
--user ann:changed get /a/x
--user root:root --password root get outside
--user root --password root get outside
--user root:root auth disable
--user root:root auth disable
get outside
user delete ann
role list
""".strip().splitlines()

TOURS = {"keys": KEYS, "leases": LEASES, "cluster": CLUSTER, "users": USERS}

# What is a store's own.
_PEERS = re.compile(r"http://127\.0\.0\.1:\d+")
_VERSION = re.compile(r"\b3\.[45]\.\d+\b")
_TABLE = re.compile(r"(?<=[-+|])[- ]+|[- ]+(?=[-+|])")  # columns are as wide as what was made equal
_PROGRESS = re.compile(r"(true|false), (true|false), \d+, \d+, \d+")
_SIZES = re.compile(r"(\d+(\.\d+)? [kM]?B)|(\"(dbSize|dbSizeInUse|raft\w*|hash)\":\d+)|(\"\w*[sS]ize\w*\" : \d+)")
_TIMES = re.compile(r"\d+(\.\d+)?(µs|ms|s)\b(?!\))|\"took\":\"[^\"]*\"")
_FIELDS = re.compile(r'"(Raft\w+|DBSize\w*|Hash)" : \d+')
_IDS = re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12,16}\b|\b\d{12,20}\b|[0-9a-f]{15,16}")
_BAR = re.compile(r"^ *\d+ / \d+.*[\r\n]+", re.MULTILINE)
_REASONS = re.compile(r'^\{"level":.*\n', re.MULTILINE)  # the client's own log of its tries


class Teller:
    """Runs commands against one store and tells what came of them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._ids: dict[str, str] = {}

    def run(self, line: str) -> str:
        command, _, typed = line.partition(" <<< ")
        done = subprocess.run(
            ["bash", "-c", f"exec etcdctl --command-timeout=5s --dial-timeout=5s {command}"],
            env=environment(self.store),
            input=typed.replace("|", "\n") + "\n" if typed else "",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return f"$ etcdctl {line}\n{self._equal(done.stdout)}{self._equal(done.stderr)}= {done.returncode}\n"

    def _equal(self, text: str) -> str:
        text = _REASONS.sub("", _BAR.sub("", text)).replace(self.store.endpoints[0], "ENDPOINT")
        text = _PEERS.sub("PEER", text)
        text = _IDS.sub(lambda match: self._ids.setdefault(match[0], f"<id {len(self._ids)}>"), text)
        text = _PROGRESS.sub(r"\1, \2, <term>, <index>, <index>", _VERSION.sub("<version>", text))
        text = _TABLE.sub("", text)
        for pattern, name in ((_TIMES, "<time>"), (_SIZES, "<size>"), (_FIELDS, "<own>")):
            text = pattern.sub(name, text)
        return text


@pytest.fixture(scope="module")
def tellers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Teller, Teller]]:
    folder: Path = tmp_path_factory.mktemp("tour")
    (folder / "etcd").mkdir()
    (folder / "ours").mkdir()
    more = ("--heartbeat-interval=50", "--election-timeout=500", "--bcrypt-cost=4")
    with real_etcd(folder / "etcd", more=more) as theirs, ours(folder / "ours", members=1, engine="native") as mine:
        yield Teller(theirs), Teller(mine)


@pytest.mark.parametrize("tour", TOURS)
def test_the_tour_reads_the_same(tellers: tuple[Teller, Teller], tour: str) -> None:
    theirs, mine = tellers
    different = []
    for line in TOURS[tour]:
        expected, found = theirs.run(line), mine.run(line)
        if expected != found:
            different.append(f"--- etcd\n{expected}--- ours\n{found}")
    assert not different, "\n".join(different)
