"""Raft without I/O: no socket, file, clock or randomness of its own, so that one seed can run a whole group."""
