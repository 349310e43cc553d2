"""When a master takes the record, keeps it and gives it up."""

import msgspec
import pytest

from client.etcd import EtcdClient
from master.leadership import Leadership, Record, Seen, Step, View, decide

OTHERS = Seen(9, Record("other", 2))
GONE = Seen(9)
OURS = Seen(7, Record("me", 1))
IDLE = View(name="me", member=1, leads_store=False, seen=OTHERS, held=0, lease_alive=False, gone_for_s=0.0)
HOLDING = msgspec.structs.replace(IDLE, leads_store=True, seen=OURS, held=7, lease_alive=True)


@pytest.mark.parametrize(
    ("view", "changes", "step"),
    [
        pytest.param(IDLE, {}, Step.STAY, id="another leads beside the store's leader"),
        pytest.param(IDLE, {"leads_store": True}, Step.TAKE, id="our member leads, the holder is beside another"),
        pytest.param(IDLE, {"leads_store": True, "member": 2}, Step.STAY, id="the holder shares our member"),
        pytest.param(IDLE, {"leads_store": True, "seen": OURS}, Step.TAKE, id="ours from before we stopped leading"),
        pytest.param(IDLE, {"seen": OURS}, Step.STAY, id="ours from before, left to whoever is nearer now"),
        pytest.param(IDLE, {"leads_store": True, "seen": None}, Step.STAY, id="nothing known yet"),
        pytest.param(IDLE, {"leads_store": True, "seen": GONE}, Step.TAKE, id="no record, our member leads"),
        pytest.param(IDLE, {"seen": GONE, "gone_for_s": 0.3}, Step.STAY, id="no record, left to the nearer one"),
        pytest.param(IDLE, {"seen": GONE, "gone_for_s": 0.6}, Step.TAKE, id="no record for long"),
        pytest.param(HOLDING, {}, Step.STAY, id="holding"),
        pytest.param(HOLDING, {"leads_store": False}, Step.STAY, id="holding until somebody nearer takes it"),
        pytest.param(HOLDING, {"seen": OTHERS}, Step.STEP_DOWN, id="taken over"),
        pytest.param(HOLDING, {"seen": GONE}, Step.STEP_DOWN, id="the record went"),
        pytest.param(HOLDING, {"lease_alive": False}, Step.STEP_DOWN, id="not renewed in time"),
    ],
)
def test_next_step(view: View, changes: dict[str, object], step: Step) -> None:
    assert decide(msgspec.structs.replace(view, **changes), grace_s=0.5) is step


async def test_late_news_of_an_older_record_changes_nothing() -> None:
    """The watch may tell of the deletion before our take-over only after the take-over was answered."""
    leadership = Leadership(EtcdClient(["127.0.0.1:1"]), name="me", endpoint="127.0.0.1:1")
    leadership._saw(Seen(7, Record("me", 1)))
    leadership._saw(Seen(6))
    assert leadership.holder == "me"
    leadership._saw(Seen(8))
    assert leadership.holder == ""
