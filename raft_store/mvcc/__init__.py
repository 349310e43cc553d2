"""Multi-version storage without I/O: revisions, transactions, watches and leases as etcd defines them."""
