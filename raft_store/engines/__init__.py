"""Ways to agree: each module implements the ``Engine`` protocol of ``raft_store.engine``."""
