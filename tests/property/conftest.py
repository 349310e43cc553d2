"""What property tests share: a running REST server over a registry in memory."""

from tests.unit.master.conftest import agent, api, registry

__all__ = ["agent", "api", "registry"]
