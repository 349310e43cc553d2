"""Kinds that clients define at run time: their schemas, what these do to objects, and the rows they become."""
