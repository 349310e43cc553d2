"""Who may do what: users, roles and permissions as etcd defines them. The store's part is replicated and has no I/O."""
