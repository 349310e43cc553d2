"""One member of the replicated key-value store: an etcd v3 server whose consensus can be read and simulated."""
