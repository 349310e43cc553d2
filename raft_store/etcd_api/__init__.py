"""The etcd v3 services: translation between etcd's messages and the store's requests, nothing else."""
