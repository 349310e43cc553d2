"""The Common Expression Language, as rules of custom kinds use it: parsed, checked and evaluated within bounds.

Sources: the language definition at github.com/google/cel-spec; kubernetes.io, "Common Expression Language in
Kubernetes" for the libraries beyond the standard.
"""
