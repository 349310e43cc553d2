"""Drivers: what a host is made of."""
