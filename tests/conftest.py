"""What every test shares: hypothesis settings for a small, noisy machine, and the opt-in of slow tests."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Two noisy cores: a slow draw says nothing about the code under test.
settings.register_profile("lab", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lab")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what takes more than a minute, unless asked for."""
    if os.environ.get("TRIREME_SLOW"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes more than a minute: set TRIREME_SLOW=1 to run it"))
