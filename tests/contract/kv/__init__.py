"""One suite for every etcd v3 store: ours on each engine, and the real one."""
