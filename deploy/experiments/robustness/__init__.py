"""Robustness: real members as processes, real clients, real faults; then every promise is checked on what was seen."""
