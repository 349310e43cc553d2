"""What class of service a pod's requests and limits give it."""

from typing import Any

import msgspec
import pytest

from api.kinds.pods import PodSpec
from api.qos import qos_class


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        ([{}], "BestEffort"),
        ([{"requests": {"cpu": "0"}}], "BestEffort"),
        ([{"requests": {"cpu": "1m"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"memory": "0"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable"),
        ([{"limits": {"cpu": "1"}}], "Burstable"),
    ],
)
def test_class(resources: list[dict[str, Any]], qos: str) -> None:
    containers = [{"name": f"c{n}", "resources": each} for n, each in enumerate(resources)]
    assert qos_class(msgspec.convert({"containers": containers}, PodSpec)) == qos
    beside = {"containers": [{"name": "main"}], "initContainers": containers}
    assert qos_class(msgspec.convert(beside, PodSpec)) == ("Burstable" if qos == "Guaranteed" else qos)
