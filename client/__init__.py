"""What a program needs to talk to the masters and to the store; knows nothing of who uses it."""
