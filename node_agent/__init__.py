"""One node of the cluster: it runs pods, connects them and tells the masters how they are."""
