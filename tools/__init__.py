"""Scripts for developers: what is generated, and how."""
