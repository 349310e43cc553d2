"""What ``up`` and ``down`` do, in order."""
