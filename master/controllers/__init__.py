"""What keeps the cluster as its objects say: one controller a file, each a pure plan and a thin apply."""
