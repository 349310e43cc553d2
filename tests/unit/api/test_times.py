"""Times take one form, whatever form a client writes them in."""

import pytest

from api import codec, times
from api.errors import BadRequest
from api.kinds.table import TABLE

LEASE = TABLE.kind("coordination.k8s.io/v1", "Lease")
POD = TABLE.kind("v1", "Pod")


@pytest.mark.parametrize(
    ("text", "micro", "form"),
    [
        ("2017-09-19T13:49:16Z", False, "2017-09-19T13:49:16Z"),
        ("2017-09-19T13:49:16.999Z", False, "2017-09-19T13:49:16Z"),
        ("2017-09-19T15:49:16+02:00", False, "2017-09-19T13:49:16Z"),
        ("2017-09-19T13:49:16Z", True, "2017-09-19T13:49:16.000000Z"),
        ("2017-09-19T13:49:16.5Z", True, "2017-09-19T13:49:16.500000Z"),
        ("2017-09-19T13:49:16.123456789-00:30", True, "2017-09-19T14:19:16.123456Z"),
        ("", True, ""),
    ],
)
def test_one_form(text, micro, form):
    assert times.canonical(text, micro=micro) == form


@pytest.mark.parametrize(
    "text",
    ["now", "2017-09-19", "20170919T134916Z", "2017-09-19 13:49:16Z", "2017-09-19T13:49:16", "2017-02-30T00:00:00Z",
     "2017-09-19T13:49:60Z", "0001-01-01T00:00:00+01:00", "2017-W38-2T13:49:16Z"],
)  # fmt: skip
def test_what_is_no_time(text):
    with pytest.raises(ValueError, match=r".+"):
        times.canonical(text, micro=False)


def test_fields_that_hold_times():
    lease = codec.decode(LEASE, {"spec": {"renewTime": "2017-09-19T13:49:16Z"}, "metadata": {"name": "a"}})
    assert lease.spec.renew_time == "2017-09-19T13:49:16.000000Z"
    with pytest.raises(BadRequest, match=r"into field status\.startTime of type Time"):
        codec.decode(POD, {"status": {"startTime": "yesterday"}})
