"""Experiments: clients work, a fault strikes, the cluster heals; a report says what it cost."""
