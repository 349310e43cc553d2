"""``./trireme``: brings labs up, breaks them, looks inside and takes them down.

It drives the programs as commands on hosts and imports none of them; the only thing shared is the contract under
``proto/``, by which ``status`` asks the masters.
"""
