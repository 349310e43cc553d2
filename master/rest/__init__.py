"""The Kubernetes REST API over HTTPS: translation between HTTP and the registry's verbs, and nothing else."""
