"""Tools for a store: who and how its members are, snapshots, what lies in a data directory, how Raft works."""
