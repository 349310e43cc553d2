"""Pods of this node: from what the API wants to what the container runtime has."""
