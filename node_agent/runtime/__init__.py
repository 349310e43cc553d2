"""What runs containers: one protocol, Docker behind it, and a hollow twin that runs nothing."""
