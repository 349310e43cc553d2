"""Which node each pod runs on: pure filters and scores over a snapshot, a queue that wakes up, sure bindings."""
