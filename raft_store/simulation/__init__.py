"""A whole group in one thread: real cores, real log files' bytes; network, disk and clock from one seed."""
